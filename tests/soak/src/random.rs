//! Chance, from a seed: splitmix64.

/// A source of numbers; the same seed gives the same ones.
pub struct Random(u64);

impl Random {
    /// The stream `stream` of a seed, so that each thread has its own.
    pub fn new(seed: u64, stream: u64) -> Self {
        Self(seed ^ stream.wrapping_mul(0xd6e8_feb8_6659_fd93))
    }

    /// A number below `bound`, which is above 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    /// True once in `times`, on average.
    pub fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// A place in something of `length`, which is above 0.
    pub fn place(&mut self, length: usize) -> usize {
        // What is below a usize fits one.
        self.below(length as u64) as usize
    }
}
