//! What NetworkPolicies say, and what the kernel's table does.

use crate::cli::policy::target::{Door, Target};
use crate::cli::policy::why::{Said, why};
use crate::cli::policy::word;
use crate::cli::why::ends::{End, Ends};
use crate::cli::why::look::Look;
use crate::cni::error::CniError;
use crate::connectivity::half::{Kind, Step};
use crate::connectivity::question::{EndKind, ICMP, ICMPV6};
use crate::policy::plan::Direction;

/// The direction that the pod of this node decides about.
///
/// # Errors
/// Where nothing can be read.
pub async fn examine(
    look: &Look<'_>,
    ends: &Ends<'_>,
    direction: Direction,
    steps: &mut Vec<Step>,
) -> Result<(), CniError> {
    let own = own_end(ends, direction);
    if own.pod().is_none() {
        return Ok(());
    }
    let said = ask(look, ends, direction).await?;
    steps.extend(said.map(|said| judge(&said, direction)));
    Ok(())
}

/// The direction that another node decides about, as far as it is known here; only what it denies.
///
/// # Errors
/// Where nothing can be read.
pub async fn examine_hearsay(
    look: &Look<'_>,
    ends: &Ends<'_>,
    direction: Direction,
    steps: &mut Vec<Step>,
) -> Result<(), CniError> {
    let own = own_end(ends, direction);
    if own.is_here() || own.asked.kind != EndKind::Pod || look.objects.is_none() {
        return Ok(());
    }
    let Some(said) = ask(look, ends, direction).await?.filter(|said| said.allowed == Some(false)) else {
        return Ok(());
    };
    let remedy = format!("change the policy, or add one that allows it; {}", ask_policy(direction));
    steps.push(Step::broken(kind(direction), said.why.join("; "), remedy));
    Ok(())
}

fn own_end<'a, 'b>(ends: &'a Ends<'b>, direction: Direction) -> &'a End<'b> {
    match direction {
        Direction::Egress => &ends.source,
        Direction::Ingress => &ends.destination,
    }
}

fn kind(direction: Direction) -> Kind {
    match direction {
        Direction::Egress => Kind::EgressPolicy,
        Direction::Ingress => Kind::IngressPolicy,
    }
}

async fn ask(look: &Look<'_>, ends: &Ends<'_>, direction: Direction) -> Result<Option<Said>, CniError> {
    let flow = &ends.flow;
    let port = (![ICMP, ICMPV6].contains(&flow.protocol)).then_some((flow.protocol, flow.port));
    let to = Door { target: Target::Address(flow.destination), port };
    let report = why(look.common, &Target::Address(flow.source), &to).await?;
    Ok(report.said(direction))
}

fn judge(said: &Said, direction: Direction) -> Step {
    let why = said.why.join("; ");
    let kind = kind(direction);
    match (said.allowed, said.kernel) {
        (Some(true), Some(false)) => {
            let sentence = format!("table inet ferrule-policy drops it, though policies allow it ({why})");
            let remedy = "a running ferruled repairs the table; otherwise starting it again does; ferrulectl doctor says what \
                          differs";
            Step::broken(kind, sentence, remedy)
        }
        (Some(false), Some(true)) => {
            Step::ok(kind, format!("the kernel lets it pass, though policies deny it ({why})"))
        }
        (Some(false), _) => {
            let remedy = format!("change the policy, or add one that allows it; {}", ask_policy(direction));
            Step::broken(kind, why, remedy)
        }
        (None, Some(false)) => Step::broken(
            kind,
            format!("table inet ferrule-policy drops it ({why})"),
            "ask again in some seconds; if it stays so: ferrulectl doctor",
        ),
        (Some(true), _) => Step::ok(kind, why),
        (None, _) => Step::unknown(kind, why),
    }
}

fn ask_policy(direction: Direction) -> String {
    format!("ferrulectl policy why tells more of {}", word(direction))
}
