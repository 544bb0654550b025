//! What nodes show at one moment.

use std::collections::BTreeMap;

use actors::observe::Observatory;
use catalog::Link;
use consensus::Applied;

use crate::judge::{Row, Shown};
use crate::options::Memory;
use crate::strike::Field;
use crate::view::View;

#[derive(Default)]
pub struct Facts {
    rows: Vec<Row>,
    links: BTreeMap<String, &'static str>,
    credit_in_use: BTreeMap<String, usize>,
}

impl Facts {
    pub fn add(&mut self, node: usize, applied: &Applied, view: &View) {
        let Some(observatory) = &view.observatory else { return };
        for link in applied.catalog.links.values() {
            self.add_link(link, observatory);
            for mirror in link.mirrors.values() {
                let rows = observatory.partitions(&link.key(&mirror.name)).into_iter();
                self.rows.extend(rows.filter_map(|row| {
                    let assignment = mirror.partitions.get(row.partition as usize)?.assignment.as_ref()?;
                    Some(Row {
                        node,
                        is_owned: assignment.node == view.node,
                        link: link.name.to_string(),
                        key: (mirror.name.to_string(), i32::try_from(row.partition).ok()?),
                        assignment_epoch: assignment.epoch,
                        view: row,
                    })
                }));
            }
        }
    }

    /// As the node sees it that sees the worst.
    fn add_link(&mut self, link: &Link, observatory: &Observatory) {
        let name = link.name.to_string();
        if let Some(bytes) = observatory.credit_in_use_bytes(&link.id) {
            self.credit_in_use.insert(name.clone(), bytes);
        }
        let Some(found) = observatory.link(&link.id) else { return };
        let held = self.links.entry(name).or_insert(found.state);
        if badness(found.state) > badness(held) {
            *held = found.state;
        }
    }

    pub fn shown<'a>(&'a self, applied: &'a Applied, field: &'a Field, memory: Memory) -> Shown<'a> {
        let Field { mirrors, history, struck, .. } = field;
        let Self { rows, links, credit_in_use } = self;
        Shown { applied, rows, links, credit_in_use, memory, mirrors, history, struck }
    }
}

fn badness(state: &str) -> u8 {
    match state {
        "FAILED" => 3,
        "UNAVAILABLE" => 2,
        "ACTIVE" => 1,
        _ => 0,
    }
}
