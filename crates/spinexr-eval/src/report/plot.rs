//! Line plots as SVG text, small enough to read: axes, ticks, lines, marks, a legend.
//!
//! Colours are classes (`s0` … `s6`) that the page's style sheet defines for light and dark; a dash
//! pattern goes with each, so that lines differ without colour.

use super::escape;
use std::fmt::Write;

/// How values become lengths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// Equal steps.
    Linear,
    /// Equal ratios; the range must be positive.
    Log,
}

/// One axis.
#[derive(Debug, Clone, PartialEq)]
pub struct Axis {
    /// What is measured, with its unit.
    pub label: String,
    /// First and last value shown.
    pub range: [f64; 2],
    /// Value and text of each tick.
    pub ticks: Vec<(f64, String)>,
    /// Linear or logarithmic.
    pub scale: Scale,
}

impl Axis {
    /// A share from 0 to 1 with ticks every quarter or half.
    pub fn share(label: &str, steps: u32) -> Self {
        let tick = |i: u32| {
            let value = f64::from(i) / f64::from(steps);
            (value, format!("{value}"))
        };
        Self {
            label: label.into(),
            range: [0.0, 1.0],
            ticks: (0..=steps).map(tick).collect(),
            scale: Scale::Linear,
        }
    }

    /// A linear axis over `low..high` with about five ticks at round values.
    pub fn round(label: &str, low: f64, high: f64) -> Self {
        let span = if high > low { high - low } else { 1.0 };
        let rough = span / 4.0;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 2.5, 5.0, 10.0]
            .into_iter()
            .map(|m| m * power)
            .find(|s| *s >= rough * 0.999)
            .unwrap_or(10.0 * power);
        let first = (low / step).floor() as i64;
        let last = ((low + span) / step - 1e-9).ceil() as i64;
        let decimals = (0..10).find(|&d| {
            let scaled = step * 10f64.powi(d);
            (scaled - scaled.round()).abs() < 1e-6
        });
        let decimals = decimals.unwrap_or(0) as usize;
        let ticks: Vec<_> =
            (first..=last).map(|i| (i as f64 * step, format!("{:.decimals$}", i as f64 * step))).collect();
        Self {
            label: label.into(),
            range: [first as f64 * step, last as f64 * step],
            ticks,
            scale: Scale::Linear,
        }
    }

    /// Place of a value between 0 (first) and 1 (last), clipped.
    fn place(&self, value: f64) -> f64 {
        let [low, high] = self.range;
        let t = match self.scale {
            Scale::Linear => (value - low) / (high - low),
            Scale::Log => (value / low).ln() / (high / low).ln(),
        };
        t.clamp(0.0, 1.0)
    }
}

/// What is drawn at the points.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// A line through them.
    Line,
    /// A line through them and a dot on each.
    LineAndDots,
}

/// One line.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Text in the legend.
    pub name: String,
    /// `[x, y]`.
    pub points: Vec<[f64; 2]>,
    /// Colour and dash pattern, `0..7`.
    pub style: usize,
    /// Drawn thicker.
    pub strong: bool,
    /// What is drawn at the points.
    pub mark: Mark,
}

/// One plot.
#[derive(Debug, Clone, PartialEq)]
pub struct Plot {
    /// What one sees, for those who cannot.
    pub description: String,
    /// Size in CSS px; the drawing scales with its container.
    pub size: [f64; 2],
    /// Horizontal axis.
    pub x: Axis,
    /// Vertical axis.
    pub y: Axis,
    /// Lines, the first on top.
    pub series: Vec<Series>,
    /// Draw the diagonal of chance.
    pub diagonal: bool,
    /// Corner of the legend, or none.
    pub legend: Option<Corner>,
    /// Text in the middle where there is nothing to draw.
    pub empty: Option<String>,
}

/// A corner of the plot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Corner {
    /// Upper right.
    TopRight,
    /// Upper left.
    TopLeft,
    /// Lower right.
    BottomRight,
}

const LEFT: f64 = 50.0;
const RIGHT: f64 = 18.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 42.0;

impl Plot {
    /// The plot as an `<svg>` element.
    pub fn svg(&self) -> String {
        let [width, height] = self.size;
        let (w, h) = (width - LEFT - RIGHT, height - TOP - BOTTOM);
        let mut out = String::new();
        // Writing to a String cannot fail.
        let mut put = |text: String| out.push_str(&text);
        put(format!(
            r#"<svg class="plot" viewBox="0 0 {width} {height}" role="img" aria-label="{}">"#,
            escape(&self.description)
        ));
        for (value, text) in &self.x.ticks {
            let x = LEFT + w * self.x.place(*value);
            put(format!(
                r#"<line class="grid" x1="{x:.1}" y1="{TOP}" x2="{x:.1}" y2="{:.1}"/><text class="tick" x="{x:.1}" y="{:.1}" text-anchor="middle">{}</text>"#,
                TOP + h,
                TOP + h + 16.0,
                escape(text)
            ));
        }
        for (value, text) in &self.y.ticks {
            let y = TOP + h * (1.0 - self.y.place(*value));
            put(format!(
                r#"<line class="grid" x1="{LEFT}" y1="{y:.1}" x2="{:.1}" y2="{y:.1}"/><text class="tick" x="{:.1}" y="{:.1}" text-anchor="end">{}</text>"#,
                LEFT + w,
                LEFT - 7.0,
                y + 4.0,
                escape(text)
            ));
        }
        put(format!(r#"<path class="axis" d="M{LEFT} {TOP}V{:.1}H{:.1}"/>"#, TOP + h, LEFT + w));
        put(format!(
            r#"<text class="label" x="{:.1}" y="{:.1}" text-anchor="middle">{}</text>"#,
            LEFT + w / 2.0,
            height - 6.0,
            escape(&self.x.label)
        ));
        put(format!(
            r#"<text class="label" transform="translate(13 {:.1}) rotate(-90)" text-anchor="middle">{}</text>"#,
            TOP + h / 2.0,
            escape(&self.y.label)
        ));
        if self.diagonal {
            put(format!(
                r#"<line class="chance" x1="{LEFT}" y1="{:.1}" x2="{:.1}" y2="{TOP}"/>"#,
                TOP + h,
                LEFT + w
            ));
        }
        for series in self.series.iter().rev() {
            put(self.line(series, w, h));
        }
        if let Some(text) = &self.empty {
            put(format!(
                r#"<text class="empty" x="{:.1}" y="{:.1}" text-anchor="middle">{}</text>"#,
                LEFT + w / 2.0,
                TOP + h / 2.0,
                escape(text)
            ));
        }
        if let Some(corner) = self.legend
            && !self.series.is_empty()
        {
            put(self.legend(corner, w, h));
        }
        put("</svg>".into());
        out
    }

    fn line(&self, series: &Series, w: f64, h: f64) -> String {
        let mut path = String::new();
        let mut dots = String::new();
        let mut last = (String::new(), String::new());
        for point in &series.points {
            let x = format!("{:.1}", LEFT + w * self.x.place(point[0]));
            let y = format!("{:.1}", TOP + h * (1.0 - self.y.place(point[1])));
            if last == (x.clone(), y.clone()) {
                continue; // nearer than a tenth of a pixel
            }
            let _ = write!(path, "{}{x} {y}", if path.is_empty() { "M" } else { "L" });
            if series.mark == Mark::LineAndDots {
                let _ =
                    write!(dots, r#"<circle class="dot s{}" cx="{x}" cy="{y}" r="3"/>"#, series.style % 7);
            }
            last = (x, y);
        }
        let strong = if series.strong { " strong" } else { "" };
        format!(r#"<path class="line s{}{strong}" d="{path}"/>{dots}"#, series.style % 7)
    }

    fn legend(&self, corner: Corner, w: f64, h: f64) -> String {
        let longest = self.series.iter().map(|s| s.name.chars().count()).max().unwrap_or(0);
        // 11.5 px text is at most about 6.6 px a character wide.
        let (box_w, box_h) = (44.0 + 6.6 * longest as f64, 8.0 + 17.0 * self.series.len() as f64);
        let x = match corner {
            Corner::TopLeft => LEFT + 8.0,
            Corner::TopRight | Corner::BottomRight => LEFT + w - box_w - 6.0,
        };
        let y = match corner {
            Corner::TopLeft | Corner::TopRight => TOP + 6.0,
            Corner::BottomRight => TOP + h - box_h - 8.0,
        };
        let mut out = format!(
            r#"<rect class="key" x="{x:.1}" y="{y:.1}" width="{box_w:.1}" height="{box_h:.1}" rx="4"/>"#
        );
        for (i, series) in self.series.iter().enumerate() {
            let line_y = y + 13.0 + 17.0 * i as f64;
            let strong = if series.strong { " strong" } else { "" };
            let _ = write!(
                out,
                r#"<path class="line s{}{strong}" d="M{:.1} {line_y:.1}h24"/><text class="name" x="{:.1}" y="{:.1}">{}</text>"#,
                series.style % 7,
                x + 7.0,
                x + 37.0,
                line_y + 4.0,
                escape(&series.name)
            );
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_ticks_hold_the_range() {
        for (low, high) in [(0.0, 1.0), (0.03, 0.71), (0.0, 1234.0), (5.0, 5.0), (-3.2, 8.9)] {
            let axis = Axis::round("x", low, high);
            assert!(axis.range[0] <= low && axis.range[1] >= high, "{axis:?}");
            assert!((3..=8).contains(&axis.ticks.len()), "{axis:?}");
        }
        assert_eq!(Axis::round("x", 0.0, 0.3).ticks[1].1, "0.1");
    }

    #[test]
    fn points_land_between_the_axes() {
        let plot = Plot {
            description: "a < b".into(),
            size: [168.0, 152.0], // a field of 100 x 100
            x: Axis {
                range: [0.125, 8.0],
                ticks: vec![(1.0, "1".into())],
                scale: Scale::Log,
                label: "x".into(),
            },
            y: Axis::share("y", 2),
            series: vec![Series {
                name: "one".into(),
                points: vec![[0.125, 0.0], [1.0, 0.5], [99.0, 1.0]],
                style: 0,
                strong: false,
                mark: Mark::Line,
            }],
            diagonal: false,
            legend: Some(Corner::TopLeft),
            empty: None,
        };
        let svg = plot.svg();
        assert!(svg.contains("M50.0 110.0L100.0 60.0L150.0 10.0"), "{svg}");
        assert!(svg.contains("a &lt; b") && svg.contains(">one<"));
    }
}
