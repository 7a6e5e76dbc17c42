//! Coding style and quantisation, of the main header or of a tile (ITU-T T.800 A.6).

use super::header::Segment;

/// Bits of a code-block style (T.800 table A.19, T.814 table A.4).
pub(super) mod modes {
    /// Later passes but the cleanup passes hold raw bits.
    pub(in super::super) const BYPASS: u8 = 1;
    /// The contexts start anew with every pass.
    pub(in super::super) const RESET: u8 = 2;
    /// Every pass is a code word of its own.
    pub(in super::super) const TERMINATE: u8 = 4;
    /// No context looks into the stripe below.
    pub(in super::super) const VERTICALLY_CAUSAL: u8 = 8;
    /// Four known symbols end every cleanup pass.
    pub(in super::super) const SEGMENTATION: u8 = 32;
    pub(in super::super) const HIGH_THROUGHPUT: u8 = 64;
    /// Blocks of both kinds.
    pub(in super::super) const MIXED: u8 = 128;
}

/// Progression changes that a tile may have: each is a walk over all packets.
const MAX_CHANGES: usize = 32;
/// A region of interest is not raised by more: its coefficients would not fit beside the others.
const MAX_REGION_SHIFT: u8 = 31;

/// The order of packets (T.800 B.12.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    LayerResolutionComponent,
    ResolutionLayerComponent,
    ResolutionPosition,
    PositionComponent,
    ComponentPosition,
}

impl Order {
    fn of(code: u8) -> Result<Self, String> {
        match code {
            0 => Ok(Self::LayerResolutionComponent),
            1 => Ok(Self::ResolutionLayerComponent),
            2 => Ok(Self::ResolutionPosition),
            3 => Ok(Self::PositionComponent),
            4 => Ok(Self::ComponentPosition),
            _ => Err(format!("progression order {code}, expected 0 to 4")),
        }
    }
}

/// Packets that come in one order: those below the ends that did not come before (T.800 A.6.6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Progression {
    pub order: Order,
    pub resolutions: (u32, u32),
    pub components: (usize, usize),
    pub layers: u32,
}

/// All that is coded about a tile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Coding {
    pub layers: u32,
    pub colour_transform: bool,
    /// Packets may begin with a marker segment, and their headers end with one (T.800 A.8).
    pub start_of_packet: bool,
    pub end_of_header: bool,
    order: Order,
    changes: Vec<Progression>,
    pub components: Vec<ComponentCoding>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ComponentCoding {
    pub style: Style,
    pub quantisation: Quantisation,
    /// Bits by which the coefficients of a region of interest are raised (T.800 annex H).
    pub region_shift: u32,
}

/// SPcod or SPcoc (T.800 table A.15).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Style {
    pub levels: u32,
    /// Sizes as powers of two.
    pub block: (u32, u32),
    pub modes: u8,
    pub reversible: bool,
    /// Precinct sizes as powers of two, by resolution from the lowest.
    pub precincts: Vec<(u32, u32)>,
}

/// QCD or QCC (T.800 A.6.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Quantisation {
    kind: Steps,
    guard_bits: u32,
    /// Exponents and mantissas.
    steps: Vec<(u32, u32)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Steps {
    /// None: the exponents say how many bit planes there are.
    Reversible,
    /// One for the lowest band, from which those of the others follow.
    Derived,
    /// One for every band.
    Expounded,
}

impl Coding {
    /// The coding of the main header's `segments`.
    pub fn of_main(segments: &[Segment], components: usize) -> Result<Self, String> {
        let style =
            segments.iter().find(|s| s.marker == 0x52).ok_or("the stream has no coding style (COD)")?;
        let steps = segments.iter().find(|s| s.marker == 0x5C).map_or_else(
            || Quantisation::without_steps(segments, components),
            |s| Quantisation::of(s.bytes),
        )?;
        let mut coding = Self {
            layers: 0,
            colour_transform: false,
            start_of_packet: false,
            end_of_header: false,
            order: Order::LayerResolutionComponent,
            changes: vec![],
            components: vec![
                ComponentCoding {
                    style: Style::of_default(style.bytes)?,
                    quantisation: steps,
                    region_shift: 0
                };
                components
            ],
        };
        coding.apply(segments)?;
        Ok(coding)
    }

    /// The progressions in turn: of all packets, where nothing changes.
    pub fn progressions(&self) -> Vec<Progression> {
        if self.changes.is_empty() {
            let (order, layers) = (self.order, self.layers);
            vec![Progression { order, resolutions: (0, 33), components: (0, usize::MAX), layers }]
        } else {
            self.changes.clone()
        }
    }

    /// Whether any component has blocks of T.814.
    pub fn high_throughput(&self) -> bool {
        self.components.iter().any(|component| component.style.has(modes::HIGH_THROUGHPUT))
    }

    /// This coding with what the headers of a tile change.
    pub fn of_tile(&self, segments: &[Segment]) -> Result<Self, String> {
        let mut coding = self.clone();
        coding.apply(segments)?;
        Ok(coding)
    }

    /// What is said of one component wins over what is said of all, whatever the order (T.800 A.6).
    fn apply(&mut self, segments: &[Segment]) -> Result<(), String> {
        for segment in segments {
            match segment.marker {
                0x52 => {
                    let &[flags, order, l0, l1, transform, ..] = segment.bytes else {
                        return Err("the coding style is too short".into());
                    };
                    self.layers = u32::from(u16::from_be_bytes([l0, l1]));
                    if transform > 1 {
                        return Err(format!("colour transform {transform}, expected 0 or 1"));
                    }
                    self.colour_transform = transform == 1;
                    self.start_of_packet = flags & 2 != 0;
                    self.end_of_header = flags & 4 != 0;
                    self.order = Order::of(order)?;
                    let style = Style::of_default(segment.bytes)?;
                    self.components.iter_mut().for_each(|component| component.style = style.clone());
                }
                0x5C => {
                    let quantisation = Quantisation::of(segment.bytes)?;
                    self.components
                        .iter_mut()
                        .for_each(|component| component.quantisation = quantisation.clone());
                }
                _ => {}
            }
        }
        let mut changes = vec![];
        for segment in segments {
            match segment.marker {
                0x53 => {
                    let (component, rest) = self.component(segment.bytes)?;
                    let Some((&flags, rest)) = rest.split_first() else {
                        return Err("the coding style of a component is too short".into());
                    };
                    component.style = Style::of(flags, rest)?;
                }
                0x5D => {
                    let (component, rest) = self.component(segment.bytes)?;
                    component.quantisation = Quantisation::of(rest)?;
                }
                0x5E => {
                    let (component, rest) = self.component(segment.bytes)?;
                    let &[0, shift @ 0..=MAX_REGION_SHIFT] = rest else {
                        return Err(format!(
                            "expected a region of interest raised by at most {MAX_REGION_SHIFT} bits"
                        ));
                    };
                    component.region_shift = u32::from(shift);
                }
                0x5F => {
                    // Numbers of components take a byte: there are fewer than 257 of them.
                    let (entries, []) = segment.bytes.as_chunks::<7>() else {
                        return Err("progression changes of a wrong length".into());
                    };
                    for &[from, first, l0, l1, to, last, order] in entries {
                        changes.push(Progression {
                            order: Order::of(order)?,
                            resolutions: (from.into(), to.into()),
                            components: (first.into(), if last == 0 { 256 } else { last.into() }),
                            layers: u32::from(u16::from_be_bytes([l0, l1])),
                        });
                    }
                }
                _ => {}
            }
        }
        if changes.len() > MAX_CHANGES {
            return Err(format!("{} progression changes", changes.len()));
        }
        // Changes of the main header hold in a tile that has none of its own, even if it has another order (T.800 A.6.6).
        if !changes.is_empty() {
            self.changes = changes;
        }
        if self.colour_transform {
            let [a, b, c] = &self.components[..] else {
                return Err(format!("a colour transform of {} components", self.components.len()));
            };
            if a.style.reversible != b.style.reversible || b.style.reversible != c.style.reversible {
                return Err("a colour transform of components with different wavelets".into());
            }
        }
        for component in &self.components {
            if component.style.reversible != (component.quantisation.kind == Steps::Reversible) {
                return Err("quantisation that does not belong to the wavelet".into());
            }
        }
        Ok(())
    }

    /// The component that a segment names, and the rest of the segment.
    fn component<'a>(&mut self, segment: &'a [u8]) -> Result<(&mut ComponentCoding, &'a [u8]), String> {
        let (&component, rest) = segment.split_first().ok_or("an empty segment about a component")?;
        let component = self.components.get_mut(usize::from(component));
        Ok((component.ok_or("coding of a component that is not there")?, rest))
    }
}

impl Style {
    fn of_default(segment: &[u8]) -> Result<Self, String> {
        match segment {
            &[flags, _, _, _, _, ref rest @ ..] => Self::of(flags, rest),
            _ => Err("the coding style is too short".into()),
        }
    }

    /// The parameters behind the flags of Scod or Scoc.
    fn of(flags: u8, parameters: &[u8]) -> Result<Self, String> {
        let &[levels, width, height, modes, wavelet, ref precincts @ ..] = parameters else {
            return Err("the coding style is too short".into());
        };
        if levels > 32 {
            return Err(format!("{levels} decomposition levels"));
        }
        if width > 8 || height > 8 || width + height > 8 {
            return Err("code blocks of more than 4096 samples".into());
        }
        if wavelet > 1 {
            return Err(format!("wavelet {wavelet}, expected 0 or 1"));
        }
        if modes & modes::MIXED != 0 {
            return Err("blocks of both parts in one component are not supported".into());
        }
        let count = usize::from(levels) + 1;
        let precincts = if flags & 1 == 0 {
            vec![(15, 15); count]
        } else {
            let sizes: Vec<_> =
                precincts.iter().take(count).map(|&p| (u32::from(p & 15), u32::from(p >> 4))).collect();
            if sizes.len() < count {
                return Err("precinct sizes are missing".into());
            }
            if sizes[1..].iter().any(|&(width, height)| width == 0 || height == 0) {
                return Err("precincts without samples of every band".into());
            }
            sizes
        };
        Ok(Self {
            levels: levels.into(),
            block: (u32::from(width) + 2, u32::from(height) + 2),
            modes,
            reversible: wavelet == 1,
            precincts,
        })
    }

    pub fn has(&self, mode: u8) -> bool {
        self.modes & mode != 0
    }
}

impl Quantisation {
    fn of(segment: &[u8]) -> Result<Self, String> {
        let (&style, steps) = segment.split_first().ok_or("the quantisation is empty")?;
        let pairs = |steps: &[u8]| {
            let words = steps.as_chunks::<2>().0.iter().map(|&pair| u32::from(u16::from_be_bytes(pair)));
            words.map(|word| (word >> 11, word & 0x7FF)).collect()
        };
        let (kind, steps) = match style & 31 {
            0 => (Steps::Reversible, steps.iter().map(|&step| (u32::from(step >> 3), 0)).collect()),
            1 => (Steps::Derived, pairs(steps)),
            2 => (Steps::Expounded, pairs(steps)),
            kind => return Err(format!("quantisation of kind {kind}, expected 0 to 2")),
        };
        Ok(Self { kind, guard_bits: u32::from(style >> 5), steps })
    }

    /// What stands for a missing QCD, which is allowed when every component has a QCC.
    fn without_steps(segments: &[Segment], components: usize) -> Result<Self, String> {
        let own = segments.iter().filter(|s| s.marker == 0x5D).count();
        if own < components {
            return Err("the stream has no quantisation (QCD)".into());
        }
        Ok(Self { kind: Steps::Reversible, guard_bits: 0, steps: vec![] })
    }

    /// Exponent and mantissa of a band: its place in the order of bands, and the decompositions it went through.
    pub fn step(&self, place: usize, decompositions: u32, levels: u32) -> Result<(u32, u32), String> {
        if self.kind != Steps::Derived {
            return self.steps.get(place).copied().ok_or_else(|| "quantisation steps are missing".into());
        }
        let &(exponent, mantissa) = self.steps.first().ok_or("quantisation steps are missing")?;
        // T.800 equation E-5.
        Ok((exponent.saturating_sub(levels - decompositions), mantissa))
    }

    /// Bit planes of a band with this exponent (T.800 equation E-2).
    pub fn planes(&self, exponent: u32) -> u32 {
        (self.guard_bits + exponent).saturating_sub(1)
    }
}
