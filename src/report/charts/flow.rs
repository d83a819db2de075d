//! The flow of cases as a chart in the manner of CONSORT: stations downwards, what was lost on the way beside each
//! step, the parts of the split abreast. Drawn twice: wide, and narrow for a phone.
//!
//! Source of the form: Schulz et al., *CONSORT 2010 statement*, BMJ 2010;340:c332.

use maud::{Markup, html};

use super::{figure, px, wrap};
use crate::report::data::{Exclusion, Flow, Station};
use crate::report::tables::count;

/// Where things are, for one width of the page.
#[derive(Debug, Clone, Copy)]
struct Layout {
    name: &'static str,
    width: f64,
    /// Left edge and width of the stations.
    main: (f64, f64),
    /// Left edge and width of the boxes of lost cases.
    side: (f64, f64),
    /// Whether lost cases stand under the arrow that they leave, not beside it.
    stacked: bool,
}

const WIDE: Layout =
    Layout { name: "wide", width: 960.0, main: (4.0, 380.0), side: (456.0, 500.0), stacked: false };
const NARROW: Layout =
    Layout { name: "narrow", width: 380.0, main: (2.0, 376.0), side: (46.0, 332.0), stacked: true };

const LINE: f64 = 18.0;
const PAD: f64 = 12.0;
const GAP: f64 = 34.0;
/// Mean width of a character of the chart's text.
const CHARACTER: f64 = 7.0;

/// The chart in both widths; the style sheet shows one. `id` is unique on the page.
pub fn draw(id: &str, flow: &Flow) -> Markup {
    html! { (one(id, flow, WIDE)) (one(id, flow, NARROW)) }
}

/// A cursor down the page, and what was drawn above it.
struct Drawing {
    layout: Layout,
    y: f64,
    marks: Vec<Markup>,
}

fn one(id: &str, flow: &Flow, layout: Layout) -> Markup {
    let mut drawing = Drawing { layout, y: 2.0, marks: Vec::new() };
    for (i, station) in flow.before.iter().enumerate() {
        drawing.station(station, i > 0);
    }
    if !flow.parts.is_empty() {
        drawing.parts(flow);
    }
    for (i, station) in flow.after.iter().enumerate() {
        drawing.station(station, i > 0 || !flow.parts.is_empty() || !flow.before.is_empty());
    }
    let body = html! { @for mark in &drawing.marks { (mark) } };
    let id = format!("{id}-{}", layout.name);
    let height = drawing.y + 4.0;
    html! {
        div class=(layout.name) {
            (figure(&id, (layout.width, height), "Flow of cases", &describe(flow), &body))
        }
    }
}

/// The chart in words.
fn describe(flow: &Flow) -> String {
    let lost = |e: &Exclusion| format!("{} lost at {}; ", count(e.cases), e.place);
    let station = |s: &Station| {
        let lost: String = s.exclusions.iter().map(lost).collect();
        format!("{lost}{}: {}.", s.label, count(s.cases))
    };
    let parts = flow.parts.iter().map(|p| format!("{}: {}.", p.part, count(p.cases)));
    let lost_in_training = flow.lost_in_training.iter().map(lost);
    let after = flow.after.iter().map(station);
    let all = flow.before.iter().map(station).chain(parts).chain(lost_in_training).chain(after);
    all.collect::<Vec<_>>().join(" ")
}

impl Drawing {
    /// A station, under an arrow from what is above and beside the cases lost on the way.
    fn station(&mut self, station: &Station, arrow: bool) {
        let (left, width) = self.layout.main;
        let centre = self.trunk();
        if arrow {
            let from = self.y;
            let lost = self.lost(&station.exclusions, centre);
            self.y = (from + GAP).max(lost);
            self.marks.push(self::arrow(centre, from, self.y));
        }
        let mut lines = vec![(format!("{}: {}", station.label, count(station.cases)), "strong")];
        for detail in &station.detail {
            let characters = ((width - 2.0 * PAD) / CHARACTER) as usize;
            lines.extend(wrap(detail, characters).into_iter().map(|line| (line, "faint")));
        }
        self.y += self.boxed((left, width), self.y, "station", &lines);
    }

    /// The boxes of lost cases between two stations; gives where they end.
    fn lost(&mut self, exclusions: &[Exclusion], centre: f64) -> f64 {
        let (left, width) = self.layout.side;
        let mut y = self.y + 14.0;
        for exclusion in exclusions {
            let middle = y + PAD + LINE / 2.0;
            self.marks.push(html! {
                line.flow x1=(px(centre)) y1=(px(middle)) x2=(px(left - 6.0)) y2=(px(middle)) {}
                path.head d=(format!("M{} {} l-8 -4 v8 z", px(left - 1.0), px(middle))) {}
            });
            let lines = exclusion_lines(exclusion, ((width - 2.0 * PAD) / CHARACTER) as usize);
            y += self.boxed((left, width), y, "lost", &lines) + 10.0;
        }
        if exclusions.is_empty() { self.y } else { y + 8.0 }
    }

    /// The parts abreast, under a fork; beside or under them the cases lost in training; those whose cases were
    /// scored lead on.
    fn parts(&mut self, flow: &Flow) {
        let (left, width) = self.layout.main;
        let parts = &flow.parts;
        let (gap, n) = (10.0, parts.len() as f64);
        let each = (width - gap * (n - 1.0)) / n;
        let centre = |i: usize| left + i as f64 * (each + gap) + each / 2.0;
        if !flow.before.is_empty() {
            let fork = self.y + GAP / 2.0;
            self.branch(&(0..parts.len()).map(centre).collect::<Vec<_>>(), self.y, fork);
            self.y += GAP;
            for i in 0..parts.len() {
                self.marks.push(arrow(centre(i), fork, self.y));
            }
        }
        let (top, mut height) = (self.y, 0.0_f64);
        for (i, part) in parts.iter().enumerate() {
            let lines = [(part.part.clone(), "strong"), (count(part.cases), "")];
            height = height.max(self.boxed((centre(i) - each / 2.0, each), top, "station", &lines));
        }
        self.y += height;
        // Lines come before boxes, so that they run behind them.
        let under = self.marks.len();
        let beside = self.lost_in_training(&flow.lost_in_training, top);
        let leading: Vec<f64> =
            (0..parts.len()).filter(|&i| parts[i].scored > 0).map(centre).collect();
        if !flow.after.is_empty() && !leading.is_empty() {
            let join = self.y + 12.0;
            let lines = html! { @for x in &leading {
                line.flow x1=(px(*x)) x2=(px(*x)) y1=(px(top + height)) y2=(px(join)) {}
            } };
            self.marks.insert(under, lines);
            self.branch(&leading, join, join);
            self.y = join;
        }
        self.y = self.y.max(beside - 14.0);
    }

    /// The boxes of cases lost in training: beside the parts, or under them; gives where those beside end.
    fn lost_in_training(&mut self, exclusions: &[Exclusion], top: f64) -> f64 {
        let (left, width) = self.layout.side;
        let stacked = self.layout.stacked;
        let mut y = if stacked { self.y + 10.0 } else { top };
        for exclusion in exclusions {
            let lines = exclusion_lines(exclusion, ((width - 2.0 * PAD) / CHARACTER) as usize);
            y += self.boxed((left, width), y, "lost", &lines) + 10.0;
        }
        if stacked && !exclusions.is_empty() {
            self.y = y - 10.0;
        }
        if exclusions.is_empty() { self.y } else { y }
    }

    /// The trunk of the chart down from `from` to `fork`, and a bar there that reaches every place in `ends`.
    fn branch(&mut self, ends: &[f64], from: f64, fork: f64) {
        let trunk = self.trunk();
        let (low, high) =
            ends.iter().fold((trunk, trunk), |(low, high), x| (low.min(*x), high.max(*x)));
        self.marks.push(html! {
            line.flow x1=(px(trunk)) x2=(px(trunk)) y1=(px(from)) y2=(px(fork)) {}
            line.flow x1=(px(low)) x2=(px(high)) y1=(px(fork)) y2=(px(fork)) {}
        });
    }

    /// Where the arrows between stations run.
    fn trunk(&self) -> f64 {
        let (left, width) = self.layout.main;
        if self.layout.stacked { left + 20.0 } else { left + width / 2.0 }
    }

    /// A box of lines at a place; gives its height.
    fn boxed(
        &mut self,
        (left, width): (f64, f64),
        y: f64,
        class: &str,
        lines: &[(String, &str)],
    ) -> f64 {
        let height = lines.len() as f64 * LINE + 2.0 * PAD - 4.0;
        self.marks.push(html! {
            rect class=(class) x=(px(left)) y=(px(y)) width=(px(width)) height=(px(height)) rx="5" {}
            @for (i, (line, class)) in lines.iter().enumerate() {
                text class=(class) x=(px(left + PAD)) y=(px(y + PAD + 12.0 + i as f64 * LINE)) { (line) }
            }
        });
        height
    }
}

fn arrow(x: f64, from: f64, to: f64) -> Markup {
    html! {
        line.flow x1=(px(x)) x2=(px(x)) y1=(px(from)) y2=(px(to - 6.0)) {}
        path.head d=(format!("M{} {} l-4 -8 h8 z", px(x), px(to - 1.0))) {}
    }
}

fn exclusion_lines(exclusion: &Exclusion, characters: usize) -> Vec<(String, &'static str)> {
    let mut lines = vec![(format!("{}: {}", exclusion.place, count(exclusion.cases)), "strong")];
    for reason in &exclusion.reasons {
        let number = count(reason.cases);
        let indent = " ".repeat(number.chars().count() + 2);
        let wrapped = wrap(&reason.reason, characters.saturating_sub(indent.chars().count()));
        for (i, line) in wrapped.into_iter().enumerate() {
            let text = if i == 0 {
                format!("{number} × {line}")
            } else {
                format!("\u{2003}\u{2002}{line}")
            };
            lines.push((text, ""));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::data::{Part, Reason};

    fn example() -> Flow {
        let qc = Exclusion {
            place: "prepared › qc".to_owned(),
            cases: 3,
            reasons: vec![Reason { reason: "SNR … is <below> 4".to_owned(), cases: 3 }],
        };
        Flow {
            before: vec![
                Station { label: "Found".to_owned(), cases: 1203, ..Station::default() },
                Station {
                    label: "Prepared".to_owned(),
                    cases: 1200,
                    exclusions: vec![qc],
                    ..Station::default()
                },
            ],
            parts: ["train", "val", "test"]
                .map(|part| Part {
                    part: part.to_owned(),
                    cases: 400,
                    scored: u64::from(part == "test"),
                })
                .to_vec(),
            lost_in_training: vec![],
            after: vec![Station { label: "Scored".to_owned(), cases: 400, ..Station::default() }],
            sql: String::new(),
        }
    }

    #[test]
    fn every_station_part_and_reason_is_there_twice() {
        let svg = draw("flow", &example()).into_string();
        for text in [
            "Found: 1,203",
            "3 × SNR … is &lt;below&gt; 4",
            "Prepared: 1,200",
            "train",
            "Scored: 400",
        ] {
            assert_eq!(svg.matches(&format!(">{text}<")).count(), 2, "{text}");
        }
        assert!(svg.contains("3 lost at prepared › qc; Prepared: 1,200."));
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }

    #[test]
    fn an_empty_flow_is_an_empty_chart() {
        assert!(draw("flow", &Flow::default()).into_string().contains("<svg"));
    }
}
