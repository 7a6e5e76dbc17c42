//! Bits of a packet header: a byte of ones is followed by one of seven bits (ITU-T T.800 B.10.1).

#[derive(Debug)]
pub(super) struct PacketBits<'a> {
    bytes: &'a [u8],
    at: usize,
    current: u8,
    left: u32,
}

impl<'a> PacketBits<'a> {
    /// Bits of `bytes` from byte `at` on.
    pub fn new(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at, current: 0, left: 0 }
    }

    #[inline]
    pub fn bit(&mut self) -> Result<u32, String> {
        if self.left == 0 {
            self.next_byte()?;
        }
        self.left -= 1;
        Ok(u32::from(self.current >> self.left & 1))
    }

    /// At most 32 bits.
    pub fn bits(&mut self, count: u32) -> Result<u32, String> {
        (0..count).try_fold(0, |value, _| Ok(value << 1 | self.bit()?))
    }

    fn next_byte(&mut self) -> Result<(), String> {
        self.left = if self.current == 0xFF { 7 } else { 8 };
        self.current = *self.bytes.get(self.at).ok_or("the stream ends inside a packet header")?;
        self.at += 1;
        Ok(())
    }

    /// Where the header ends: at a byte, behind the one that follows a byte of ones.
    pub fn end(mut self) -> Result<usize, String> {
        if self.current == 0xFF {
            self.next_byte()?;
        }
        Ok(self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_of_ones_is_followed_by_seven_bits() {
        let bytes = [0xAB, 0xFF, 0x7F, 0x80];
        let mut bits = PacketBits::new(&bytes, 1);
        assert_eq!(bits.bits(16), Ok(0xFFFF));
        assert_eq!(bits.end(), Ok(4));
        let mut bits = PacketBits::new(&bytes, 1);
        assert_eq!(bits.bits(3), Ok(7));
        assert_eq!(bits.end(), Ok(3), "one more byte behind the ones");
        let mut bits = PacketBits::new(&bytes, 3);
        assert_eq!(bits.bits(8), Ok(0x80));
        assert!(bits.bit().is_err());
    }
}
