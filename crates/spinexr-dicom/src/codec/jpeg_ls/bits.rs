//! The bit stream of a JPEG-LS scan (T.87 A.1 and C.1): after a byte FF the next one holds seven bits.

/// Bits of a scan, from the highest on.
pub(super) struct Bits<'a> {
    data: &'a [u8],
    at: usize,
    /// Bits not yet used, at the top.
    cache: u64,
    /// How many of them are from the data; the rest are zeros.
    count: u32,
    after_ff: bool,
}

const ENDS_EARLY: &str = "the scan ends before its last sample";

impl<'a> Bits<'a> {
    pub(super) fn new(data: &'a [u8]) -> Self {
        Self { data, at: 0, cache: 0, count: 0, after_ff: false }
    }

    #[inline]
    fn fill(&mut self) {
        while self.count <= 56 {
            let Some(&byte) = self.data.get(self.at) else { return };
            let width = if self.after_ff {
                7
            } else if byte == 0xFF && self.data.get(self.at + 1).is_none_or(|&next| next >= 0x80) {
                return; // a marker, or an FF as the last byte
            } else {
                8
            };
            self.after_ff = byte == 0xFF;
            self.cache |= u64::from(byte) << (64 - width - self.count);
            self.count += width;
            self.at += 1;
        }
    }

    /// The next `n` bits, at most 32.
    #[inline]
    pub(super) fn take(&mut self, n: u32) -> Result<u32, String> {
        if n == 0 {
            return Ok(0);
        }
        if self.count < n {
            self.fill();
            if self.count < n {
                return Err(ENDS_EARLY.into());
            }
        }
        let value = (self.cache >> (64 - n)) as u32;
        self.cache <<= n;
        self.count -= n;
        Ok(value)
    }

    /// Zeros before the next one, which is passed too; an error when there are more than `most`.
    #[inline]
    pub(super) fn zeros(&mut self, most: u32) -> Result<u32, String> {
        let mut zeros = 0;
        loop {
            let found = self.cache.leading_zeros();
            if found < self.count {
                zeros += found;
                self.cache <<= found;
                self.cache <<= 1;
                self.count -= found + 1;
                return if zeros <= most { Ok(zeros) } else { Err("a code of too many zeros".into()) };
            }
            zeros += self.count;
            (self.cache, self.count) = (0, 0);
            if zeros > most {
                return Err("a code of too many zeros".into());
            }
            self.fill();
            if self.count == 0 {
                return Err(ENDS_EARLY.into());
            }
        }
    }

    /// Passes the restart marker that must come next.
    pub(super) fn restart(&mut self) -> Result<(), String> {
        let at = self.end();
        match self.data.get(at..at + 2) {
            Some(&[0xFF, 0xD0..=0xD7]) => {
                *self = Self { at: at + 2, ..Self::new(self.data) };
                Ok(())
            }
            _ => Err("expected a restart marker".into()),
        }
    }

    /// Where the scan's data ends: at the next marker, or behind the last byte.
    pub(super) fn end(&self) -> usize {
        let mut at = self.at;
        while at < self.data.len() {
            if self.data[at] == 0xFF && self.data.get(at + 1).is_some_and(|&next| next >= 0x80) {
                return at;
            }
            at += 1;
        }
        at
    }
}
