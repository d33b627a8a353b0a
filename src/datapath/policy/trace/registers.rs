//! The registers of nf_tables: where a rule keeps what it compares.

use crate::linux::nft::expr::Reg;

/// Sixteen of four bytes.
#[derive(Debug)]
pub(super) struct Registers([u8; 64]);

impl Registers {
    /// As they are before a rule's first expression.
    pub(super) fn new() -> Self {
        Self([0; 64])
    }

    /// Fills up the last register with zeros, as the kernel does.
    pub(super) fn load(&mut self, to: Reg, value: &[u8]) {
        let begin = usize::from(to.0) * 4;
        let padded = value.len().next_multiple_of(4);
        let bytes = value.iter().copied().chain(std::iter::repeat(0)).take(padded);
        self.0.iter_mut().skip(begin).zip(bytes).for_each(|(register, byte)| *register = byte);
    }

    pub(super) fn mask(&mut self, at: Reg, mask: &[u8]) {
        let registers = self.0.iter_mut().skip(usize::from(at.0) * 4);
        registers.zip(mask).for_each(|(register, mask)| *register &= mask);
    }

    pub(super) fn get(&self, from: Reg, length: usize) -> &[u8] {
        let begin = usize::from(from.0) * 4;
        self.0.get(begin..begin + length).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_hold_what_the_kernel_s_would() {
        let mut registers = Registers([0xff; 64]);
        registers.load(Reg(1), &[6]);
        assert_eq!(registers.get(Reg(0), 12), [255, 255, 255, 255, 6, 0, 0, 0, 255, 255, 255, 255]);
        registers.load(Reg(2), &443_u16.to_be_bytes());
        assert_eq!(registers.get(Reg(1), 8), [6, 0, 0, 0, 1, 187, 0, 0]);
        registers.mask(Reg(2), &[0, 0xf0]);
        assert_eq!(registers.get(Reg(2), 2), [0, 0xb0]);
        // Somebody's rule beyond the last one is no reason to die.
        registers.load(Reg(15), &[1; 16]);
        assert_eq!(registers.get(Reg(15), 16), [0_u8; 0]);
    }
}
