//! Expressions as the kernel lists them.
//!
//! What it adds by itself (the upper ends of ranges, flags that follow from what is there) is passed over, so
//! that a rule reads as it was written.

use super::super::super::attributes::Attributes;
use super::log::read_limit;
use super::uapi::*;
use super::{Comparison, Counted, Expr, Extension, Header, Log, MetaField, Reg, Verdict, trace};

impl Expr {
    /// Reads one expression. [`Expr::Foreign`] if it is none that [`Expr`] has a word for.
    pub(in super::super) fn read(attributes: Attributes<'_>) -> Self {
        let name = attributes.text(NFTA_EXPR_NAME).unwrap_or_default();
        let fields = Fields(attributes.nested(NFTA_EXPR_DATA).unwrap_or(Attributes(&[])));
        let expr = match name.as_str() {
            "meta" => fields.read_meta().or_else(|| trace::read(fields.0)),
            "payload" => fields.read_payload(),
            "cmp" => fields.read_compare(),
            "bitwise" => fields.read_mask(),
            "byteorder" => fields.read_byte_order(),
            "lookup" => fields.read_lookup(),
            "immediate" => fields.read_verdict().map(Self::Verdict),
            "nat" => fields.read_nat(),
            "masq" => fields.read_masquerade(),
            "fib" => fields.read_fib(),
            "ct" => fields.read_flow(),
            "counter" => Some(Self::Counter),
            "limit" => read_limit(fields.0),
            "log" => Log::read(fields.0).map(Self::Log),
            "match" => fields.read_extension(false).map(Self::Extension),
            "target" => fields.read_extension(true).map(Self::Extension),
            _ => None,
        };
        expr.unwrap_or(Self::Foreign(name))
    }
}

impl Verdict {
    /// Reads the data of an immediate or of a map's element; `None` if that is no verdict of these.
    pub(in super::super) fn read(data: Attributes<'_>) -> Option<Self> {
        let verdict = data.nested(NFTA_DATA_VERDICT)?;
        let chain = || verdict.text(NFTA_VERDICT_CHAIN);
        match verdict.number(NFTA_VERDICT_CODE)? {
            NF_ACCEPT => Some(Self::Accept),
            NF_DROP => Some(Self::Drop),
            NFT_RETURN => Some(Self::Return),
            NFT_JUMP => chain().map(Self::Jump),
            NFT_GOTO => chain().map(Self::Goto),
            _ => None,
        }
    }
}

impl Counted {
    /// Reads what an expression has counted, if it is a counter.
    pub(in super::super) fn read(expression: Attributes<'_>) -> Option<Self> {
        if expression.text(NFTA_EXPR_NAME)? != "counter" {
            return None;
        }
        let fields = expression.nested(NFTA_EXPR_DATA)?;
        let long = |kind| fields.value(kind)?.first_chunk::<8>().map(|bytes| u64::from_be_bytes(*bytes));
        Some(Self { packets: long(NFTA_COUNTER_PACKETS)?, bytes: long(NFTA_COUNTER_BYTES)? })
    }
}

/// What an expression says.
struct Fields<'a>(Attributes<'a>);

impl Fields<'_> {
    fn register(&self, kind: u16) -> Option<Reg> {
        self.0.number(kind).and_then(Reg::from_number)
    }

    fn bytes(&self, kind: u16) -> Option<Vec<u8>> {
        self.0.nested(kind)?.value(NFTA_DATA_VALUE).map(<[u8]>::to_vec)
    }

    fn says(&self, kind: u16, wanted: u32) -> bool {
        self.0.number(kind) == Some(wanted)
    }

    fn read_meta(&self) -> Option<Expr> {
        use MetaField::{Family, InputGroup, InputName, Mark, OutputName, Protocol};
        let field = [Family, Protocol, InputName, OutputName, InputGroup, Mark]
            .into_iter()
            .find(|field| self.says(NFTA_META_KEY, field.to_netlink().into()))?;
        Some(Expr::Meta { field, to: self.register(NFTA_META_DREG)? })
    }

    fn read_payload(&self) -> Option<Expr> {
        let mut headers = [Header::Network, Header::Transport].into_iter();
        Some(Expr::Payload {
            header: headers.find(|header| self.says(NFTA_PAYLOAD_BASE, header.number()))?,
            offset: self.0.number(NFTA_PAYLOAD_OFFSET)?,
            length: self.0.number(NFTA_PAYLOAD_LEN)?,
            to: self.register(NFTA_PAYLOAD_DREG)?,
        })
    }

    fn read_compare(&self) -> Option<Expr> {
        use Comparison::{AtLeast, AtMost, Equal, NotEqual};
        let mut comparisons = [Equal, NotEqual, AtLeast, AtMost].into_iter();
        Some(Expr::Compare {
            from: self.register(NFTA_CMP_SREG)?,
            comparison: comparisons.find(|it| self.says(NFTA_CMP_OP, it.to_netlink().into()))?,
            value: self.bytes(NFTA_CMP_DATA)?,
        })
    }

    fn read_mask(&self) -> Option<Expr> {
        let at = self.register(NFTA_BITWISE_DREG)?;
        let masks = self.register(NFTA_BITWISE_SREG)? == at
            && self.0.number(NFTA_BITWISE_OP).unwrap_or(0) == 0
            && self.bytes(NFTA_BITWISE_XOR)?.iter().all(|&byte| byte == 0);
        Some(Expr::Mask { at, mask: self.bytes(NFTA_BITWISE_MASK)? }).filter(|_| masks)
    }

    fn read_byte_order(&self) -> Option<Expr> {
        let at = self.register(NFTA_BYTEORDER_DREG)?;
        let to_network = self.register(NFTA_BYTEORDER_SREG)? == at
            && self.says(NFTA_BYTEORDER_OP, NFT_BYTEORDER_HTON)
            && self.says(NFTA_BYTEORDER_LEN, 4)
            && self.says(NFTA_BYTEORDER_SIZE, 4);
        to_network.then_some(Expr::ToNetworkOrder { at })
    }

    fn read_lookup(&self) -> Option<Expr> {
        if self.0.number(NFTA_LOOKUP_FLAGS).unwrap_or(0) != 0 {
            return None;
        }
        let (set, key) = (self.0.text(NFTA_LOOKUP_SET)?, self.register(NFTA_LOOKUP_SREG)?);
        Some(match self.0.number(NFTA_LOOKUP_DREG) {
            None => Expr::Lookup { set, key, data: None },
            Some(NFT_REG_VERDICT) => Expr::LookupVerdict { set, key },
            Some(data) => Expr::Lookup { set, key, data: Some(Reg::from_number(data)?) },
        })
    }

    fn read_verdict(&self) -> Option<Verdict> {
        Verdict::read(self.0.nested(NFTA_IMMEDIATE_DATA)?)
    }

    fn read_extension(&self, is_target: bool) -> Option<Extension> {
        Some(Extension {
            is_target,
            name: self.0.text(NFTA_MATCH_NAME)?,
            revision: self.0.number(NFTA_MATCH_REV)?,
            info: self.0.value(NFTA_MATCH_INFO)?.to_vec(),
        })
    }

    fn read_nat(&self) -> Option<Expr> {
        if !self.says(NFTA_NAT_TYPE, NFT_NAT_DNAT) {
            return None;
        }
        Some(Expr::Dnat {
            family: self.0.number(NFTA_NAT_FAMILY)?.try_into().ok()?,
            address: self.register(NFTA_NAT_REG_ADDR_MIN)?,
            port: self.register(NFTA_NAT_REG_PROTO_MIN)?,
        })
    }

    fn read_masquerade(&self) -> Option<Expr> {
        match self.0.number(NFTA_MASQ_FLAGS).unwrap_or(0) {
            0 => Some(Expr::Masquerade { fully_random: false }),
            NF_NAT_RANGE_PROTO_RANDOM_FULLY => Some(Expr::Masquerade { fully_random: true }),
            _ => None,
        }
    }

    fn read_fib(&self) -> Option<Expr> {
        let flags = self.0.number(NFTA_FIB_FLAGS)?;
        if self.says(NFTA_FIB_RESULT, NFT_FIB_RESULT_OIF) && flags == NFTA_FIB_F_DADDR | NFTA_FIB_F_PRESENT {
            return Some(Expr::HasRoute { to: self.register(NFTA_FIB_DREG)? });
        }
        let on_input_link = match flags {
            NFTA_FIB_F_DADDR => false,
            flags if flags == NFTA_FIB_F_DADDR | NFTA_FIB_F_IIF => true,
            _ => return None,
        };
        let to = self.register(NFTA_FIB_DREG)?;
        let is_type = self.says(NFTA_FIB_RESULT, NFT_FIB_RESULT_ADDRTYPE);
        is_type.then_some(Expr::DestinationType { on_input_link, to })
    }

    fn read_flow(&self) -> Option<Expr> {
        let to = self.register(NFTA_CT_DREG)?;
        let ipv4 = match self.0.number(NFTA_CT_KEY)? {
            NFT_CT_STATE => return Some(Expr::FlowState { to }),
            NFT_CT_STATUS => return Some(Expr::FlowStatus { to }),
            NFT_CT_SRC_IP => true,
            NFT_CT_SRC_IP6 => false,
            _ => return None,
        };
        let of_answers = self.0.value(NFTA_CT_DIRECTION)? == [1];
        Some(Expr::FlowSource { of_answers, ipv4, to })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use netlink_packet_netfilter::nftables::{
        ExpressionAttribute, Expressions, ListAttribute, Lookup, Register,
    };
    use rtnetlink::packet_core::{DefaultNla, Emitable};

    /// Reads what would be sent.
    fn read(entry: ListAttribute<ExpressionAttribute>) -> Expr {
        let mut bytes = vec![0; entry.buffer_len()];
        entry.emit(&mut bytes);
        // After the header of the entry.
        Expr::read(Attributes(&bytes[4..]))
    }

    #[test]
    fn every_expression_reads_as_it_was_written() {
        let (a, b) = (Reg(0), Reg(5));
        let written = [
            Expr::Meta { field: MetaField::InputName, to: a },
            Expr::Payload { header: Header::Transport, offset: 2, length: 2, to: b },
            Expr::Compare { from: a, comparison: Comparison::AtMost, value: vec![137] },
            Expr::Mask { at: b, mask: vec![0xff, 0xc0] },
            Expr::ToNetworkOrder { at: a },
            Expr::Lookup { set: "s".into(), key: a, data: None },
            Expr::Lookup { set: "m".into(), key: a, data: Some(b) },
            Expr::Verdict(Verdict::Goto("c".into())),
            Expr::Verdict(Verdict::Drop),
            Expr::Dnat { family: 10, address: a, port: b },
            Expr::Masquerade { fully_random: true },
            Expr::Masquerade { fully_random: false },
            Expr::DestinationType { on_input_link: false, to: b },
            Expr::DestinationType { on_input_link: true, to: a },
            Expr::HasRoute { to: a },
            Expr::FlowStatus { to: a },
            Expr::FlowState { to: a },
            Expr::FlowSource { of_answers: false, ipv4: true, to: b },
            Expr::FlowSource { of_answers: true, ipv4: false, to: b },
            Expr::Counter,
            Expr::Extension(Extension::comment("ferrule: podnet")),
            Expr::Extension(Extension {
                is_target: true,
                name: "REJECT".into(),
                revision: 0,
                info: vec![3; 4],
            }),
            Expr::LookupVerdict { set: "v".into(), key: a },
            Expr::Limit { per_second: 10, burst: 5 },
            Expr::Trace { from: b },
            Expr::Log(Log { group: 102, prefix: "ferrule denied in: ".into(), length: 128 }),
            Expr::Foreign("quota".into()),
        ];
        for expr in written {
            assert_eq!(read(expr.to_netlink()), expr);
        }
    }

    #[test]
    fn what_means_something_else_is_foreign() {
        let inverted = Expressions::Lookup(vec![
            Lookup::Set("s".into()),
            Lookup::SourceRegister(Register::Reg1),
            Lookup::Flags(1),
        ]);
        let snat = Expressions::Other {
            expression_type: "nat".into(),
            attributes: vec![DefaultNla::new(NFTA_NAT_TYPE, vec![0; 4])],
        };
        for (expressions, name) in [(inverted, "lookup"), (snat, "nat")] {
            assert_eq!(read(expressions.into()), Expr::Foreign(name.into()));
        }
    }
}
