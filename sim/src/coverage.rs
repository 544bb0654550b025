//! Which paths seeds took, read from their traces: a simulation finds nothing on a path that it never
//! walks. README.md says what each name means.

use std::collections::BTreeSet;
use std::fmt;

use kafka::ErrorCode;

/// A path is walked in a seed when one line of its trace holds all of these.
struct Path {
    name: &'static str,
    line: &'static [&'static str],
}

const fn path(name: &'static str, line: &'static [&'static str]) -> Path {
    Path { name, line }
}

const PATHS: [Path; 81] = [
    path("written by idempotent producers", &["sim: an idempotent producer of "]),
    path("written by plain producers", &["sim: a plain producer of "]),
    path("group has a member at the source", &["sim: app-", " has a member at north"]),
    path("group has a member at the destination", &["sim: app-", " has a member at south"]),
    path("group reset", &["sim: app-", " is reset on "]),
    path("group put where it stands", &["groups: app-", " was put to "]),
    path("prefix filled", &["actors: cutting off the filler"]),
    path("fault during a fill", &["ambush: "]),
    path("cut lost and made again", &["walked: ", "shows again what was cut"]),
    path("unguarded", &["shown: ", " RUNNING at ", ", unguarded"]),
    path("ambiguity wait before a run", &["not yet: a request from before may arrive"]),
    path("ambiguity wait in a run", &["lane ended: quiet"]),
    path("in doubt", &["lane ended: ", "(requests in doubt)"]),
    path("partition leader moved", &["a partition leader moved"]),
    path("high watermark behind", &["not yet: ", "isn't replicated yet"]),
    path("memory and log end at odds", &["not yet: ", "requests from before are still arriving"]),
    path("unclean election, source", &["cluster north: ", " and ends at "]),
    path("unclean election, destination", &["cluster south: ", " and ends at "]),
    path("refused though appended", &["mischief: Produce requests take effect and are answered"]),
    path("answer lost", &["mischief: Produce requests take effect without"]),
    path("request late", &["mischief: Produce requests come up to"]),
    path("request after its connection", &["mischief: Produce requests lose their connection"]),
    path("duplicate answered", &["broker: a duplicate", ".mirror-"]),
    path("batch refused", &["broker: a batch is refused", ".mirror-"]),
    path("batch cut", &["broker: an answer is cut inside a batch", "client=lockstep"]),
    path("node ends in a run", &["walked: the node ends while a partition runs"]),
    path("node ends with bytes in flight", &["walked: the node ends with bytes in flight"]),
    path("node ends in a commit", &["disk: ends in the middle"]),
    path("power cut", &["disk: power is cut"]),
    path("network cut", &["over: Network"]),
    path("broker crash", &["over: BrokerBack"]),
    path("link's credit used up", &["walked: link ", " has no room for another fetch"]),
    path("half of the credit in flight", &["walked: half of what link"]),
    path("partition has its fill", &["walked: ", " has its fill"]),
    path("partition added", &["the source has grown"]),
    path("mirror paused", &["operator: 200 to ", "mirrors:pause"]),
    path("mirror deleted with its topic", &["operator: topic ", " is deleted"]),
    path("command refused", &["operator: refused"]),
    path("mirror promoted", &["mirror topic promoted: the fence stands"]),
    path("mirror failed over", &["mirror topic failed over: the fence stands"]),
    path("promotion cancelled", &["operator: 200 to ", "mirrors:promote?cancel=true"]),
    path("several promoted at once", &["operator: asks ", "mirrors:promote {", "\",\""]),
    path("several failed over at once", &["operator: asks ", "mirrors:failover {", "\",\""]),
    path("fenced during faults", &["walked: ", "is to stop while faults last"]),
    path("fault during a stop", &["ambush of a stop: "]),
    path("node ends during a stop", &["walked: the node ends while it stops a mirror"]),
    path("stop tried again", &["the mirror hasn't stopped yet: "]),
    path("promotion off: a partition failed", &["walked: ", "is FAILED, and was being promoted"]),
    path("request of a stop disturbed", &["mischief: ", "Txn requests "]),
    path("what has stopped is written to by idempotent clients", &["sim: an idempotent client of what"]),
    path("what has stopped is written to by plain clients", &["sim: a plain client of what"]),
    path("deleted records back at the source", &["cluster north: ", "shows deleted records again"]),
    path("node joins", &["sim: node: was let in"]),
    path("Raft leader moves to another node", &["node-2 ", "sim: node: is Raft leader"]),
    path("node is lost", &["actors: WARN a node is lost"]),
    path("node leaves", &["sim: node: is told to stop"]),
    path("Raft leadership handed over", &["sim: node: the Raft leadership goes to"]),
    path("node drained", &["operator: 200 to ", ":drain"]),
    path("node removed", &["operator: 200 to DELETE /lockstep/v1/nodes"]),
    path("no connection to the API", &["operator: no connection to "]),
    path("request to the API lost", &["operator: no answer of "]),
    path("API answers 503: no Raft leader", &["operator: 503 (503)", "no Raft leader"]),
    path("API answers 503: broker away", &["operator: 503 (503)", "can't be used"]),
    path("API answers 503: in doubt", &["operator: 503 (50301)"]),
    path("operator goes to another node", &["operator: goes to "]),
    path("topic stays though its deletion was asked for", &["operator: topic ", "stays"]),
    path("node ends by itself: removed", &["sim: node: was removed"]),
    path("disk full", &["fault: disk full"]),
    path("commit waits for a slow disk", &["sim: disk: a commit waits for"]),
    path("disk damaged", &["fault: disk damaged"]),
    path("damage noticed in a run", &["sim: node: stops: ", "damaged"]),
    path("damage noticed at a start", &["sim: node: ", "is damaged"]),
    path("request throttled", &["mischief: ", "are throttled"]),
    path("person to see to a refusal", &["is told to be for a person to see to"]),
    path("clock set ahead", &["sim: fault: clock set", " ahead"]),
    path("clock set behind", &["sim: fault: clock set", " behind"]),
    path("network split", &["over: Cut"]),
    path("stopped: RETENTION_GAP", &["actors: ERROR ", "RETENTION_GAP"]),
    path("stopped: UNEXPECTED_TRUNCATION", &["actors: ERROR ", "UNEXPECTED_TRUNCATION"]),
    path("stopped: DESTINATION_LOG_DIVERGED", &["actors: ERROR ", "DESTINATION_LOG_DIVERGED"]),
    path("stopped: FOREIGN_WRITE", &["actors: ERROR ", "FOREIGN_WRITE"]),
];

/// Fewer seeds than this, of a hundred, are too few to count on.
const SELDOM_PERCENT: u64 = 2;

#[derive(Debug)]
pub struct Coverage {
    seeds: u64,
    walked: [u64; PATHS.len()],
    /// That a broker answered with, whatever was asked.
    codes: BTreeSet<i16>,
}

impl Default for Coverage {
    fn default() -> Self {
        Self { seeds: 0, walked: [0; PATHS.len()], codes: BTreeSet::new() }
    }
}

impl Coverage {
    /// One seed's trace.
    pub fn add(&mut self, trace: &str) {
        self.seeds += 1;
        let mut walked = [false; PATHS.len()];
        for line in trace.lines() {
            for (walked, path) in walked.iter_mut().zip(&PATHS).filter(|(walked, _)| !**walked) {
                *walked = path.line.iter().all(|part| line.contains(part));
            }
            self.codes.extend(code(line));
        }
        for (count, walked) in self.walked.iter_mut().zip(walked) {
            *count += u64::from(walked);
        }
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "of 100 seeds, walked by")?;
        for (path, count) in PATHS.iter().zip(self.walked) {
            let percent = count * 100 / self.seeds.max(1);
            let seldom = if percent < SELDOM_PERCENT { "  (seldom)" } else { "" };
            writeln!(f, "{percent:>5}  {}{seldom}", path.name)?;
        }
        let every = ErrorCode::every().count();
        writeln!(f, "brokers refused requests with {} of {every} error codes", self.codes.len())
    }
}

/// With which a request was refused.
fn code(line: &str) -> Option<i16> {
    let (_, code) = line.split_once("mischief: ")?.1.split_once(" are answered with error ")?;
    code.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_counts_once_a_seed_and_only_when_one_line_tells_it() {
        let mut coverage = Coverage::default();
        coverage.add("node-1 actors: cutting off the filler\nnode-1 actors: cutting off the filler\n");
        coverage.add("node-1 actors: cutting\nnode-1 sim: off the filler\n");
        coverage.add("sim: mischief: Fetch requests are answered with error -1\n");
        coverage.add("sim: mischief: Produce requests are answered with error 87\n");
        assert_eq!((coverage.seeds, coverage.walked[6]), (4, 1));
        assert_eq!(coverage.codes, BTreeSet::from([-1, 87]));
        let table = coverage.to_string();
        assert!(table.contains("   25  prefix filled\n"), "{table}");
        assert!(table.contains("    0  unguarded  (seldom)\n"), "{table}");
    }
}
