//! The command line: what is taken, what is shown.

use clap::{CommandFactory, Parser};

use super::client::escaped;
use super::output::{self, Format};
use super::{Cli, Command, authority, events, link, mirror};
use crate::api::types::{AuthorityRow, EventRow, LagRow, MirrorRow, TransitionErrorRow};

fn parse(line: &str) -> Result<Cli, String> {
    Cli::try_parse_from(line.split_whitespace()).map_err(|error| error.to_string())
}

#[test]
fn the_commands_are_well_formed() {
    Cli::command().debug_assert();
}

#[test]
fn what_the_documentation_says_is_taken() {
    for line in [
        "lockstep server --data-dir d --bootstrap --listen 127.0.0.1:7780 --peer-listen 127.0.0.1:7781",
        "lockstep server --config node.toml --metrics-listen 127.0.0.1:9000 --node-name n --insecure",
        "lockstep cluster create east --bootstrap-server a:9092,b:9092 --config client.id=x",
        "lockstep cluster create east --config east.properties --no-validate --cluster-id x --dry-run",
        "lockstep cluster list -o json --url http://a:1,http://b:2",
        "lockstep --help",
        "lockstep link create l --source east --destination west",
        "lockstep link create l --source-cluster east --cluster west --dry-run --no-validate",
        "lockstep link create l --source-bootstrap-server a:1 --destination west --config client.id=x",
        "lockstep link describe l --cluster west -o yaml",
        "lockstep cluster update east --bootstrap-server a:1 --config client.id=x --no-validate --dry-run",
        "lockstep cluster update east --delete-config client.id,ssl.truststore.type",
        "lockstep link update l --config metadata.max.age.ms=1000 --delete-config client.id --dry-run",
        "lockstep link configuration list l --cluster west -o yaml",
        "lockstep link configuration update l --config l.properties --no-validate",
        "lockstep link delete l --yes",
        "lockstep mirror create t --link l --source-topic s --replication-factor 3 --config retention.ms=1 --dry-run",
        "lockstep mirror list --link l --mirror-status failed",
        "lockstep mirror describe t --link l --cluster west -o json",
        "lockstep mirror pause a b c --link l",
        "lockstep mirror resume --pattern a.* --link l --dry-run",
        "lockstep mirror delete t --link l --yes",
        "lockstep mirror delete t --link l --delete-topic --dry-run",
        "lockstep node authority list -o json",
        "lockstep node authority rotate --wait=90s --yes -o json",
        "lockstep node authority rotate --wait",
        "lockstep node authority remove 0f --yes --url a:1",
        "lockstep node recover --data-dir d --although-others-answer --yes",
        "lockstep status -o json",
        "lockstep verify --link l",
        "lockstep verify a b --link l --cluster west --last 10 --max-bytes-per-second 1000 --timeout 2min -o yaml",
        "lockstep verify a --link l --all",
    ] {
        match parse(line) {
            Ok(_) => {}
            Err(text) => assert!(line.ends_with("--help"), "{line}: {text}"),
        }
    }
}

#[test]
fn what_is_missing_or_contradictory_is_refused() {
    for line in [
        "lockstep",
        "lockstep mirror describe t",
        "lockstep mirror pause --link l",
        "lockstep mirror pause t --pattern t --link l",
        "lockstep link create l --destination west",
        "lockstep link create l --source east --source-bootstrap-server a:1 --destination west",
        "lockstep mirror promote --link l",
        "lockstep mirror promote t --link l --wait=soon",
        "lockstep mirror promote t --link l --cancel --wait",
        "lockstep mirror failover t --link l --cancel",
        "lockstep verify t",
        "lockstep verify --link l --all --last 1",
        "lockstep verify --link l --last 0",
        "lockstep verify --link l --timeout 0s",
        "lockstep verify --link l --max-bytes-per-second 0",
        "lockstep node authority",
        "lockstep node authority remove",
        "lockstep node authority rotate --wait=soon",
        "lockstep link update",
        "lockstep link configuration l",
    ] {
        assert!(parse(line).is_err(), "{line}");
    }
}

#[test]
fn several_urls_are_a_list() {
    let cli = parse("lockstep cluster --url http://a:1,b:2 list --output json").expect("parsed");
    let Command::Cluster(command) = cli.command else { panic!("not cluster") };
    let shown = format!("{command:?}");
    assert!(shown.contains(r#"url: ["http://a:1", "b:2"], output: Json"#), "{shown}");
}

#[test]
fn every_level_has_help_with_an_example() {
    fn check(command: &clap::Command) {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        assert!(help.contains("Example"), "{} has no example", command.get_name());
        command.get_subcommands().filter(|c| c.get_name() != "help").for_each(check);
    }
    check(&Cli::command());
}

#[test]
fn a_name_stays_one_part_of_a_path() {
    assert_eq!(escaped("a/../b?c d"), "a%2F..%2Fb%3Fc%20d");
}

#[test]
fn formats_default_to_human() {
    assert_eq!(Format::default(), Format::Human);
    let yaml = serde_saphyr::to_string(&serde_json::json!({"a": null, "b": ["x: y", 1]})).expect("YAML");
    assert_eq!(yaml, "a: null\nb:\n- \"x: y\"\n- 1\n");
}

#[test]
fn tables_are_plain_lines() {
    let rows = [vec!["a".to_owned(), "1".to_owned()], vec!["longer".to_owned(), "-".to_owned()]];
    assert_eq!(output::table(&["NAME", "LAG"], rows), "NAME    LAG\na       1\nlonger  -");
    assert_eq!(output::fields(&[("Name", "a".into()), ("Status", "b".into())]), "Name    a\nStatus  b");
}

fn a_lag() -> LagRow {
    LagRow {
        partition: 0,
        lag: None,
        last_source_fetch_offset: None,
        lag_ms: None,
        source_end_offset: None,
        source_last_stable_offset: None,
        mirror_end_offset: Some(10),
        node: Some("n1".into()),
        state: "RUNNING".into(),
        guarded: Some(true),
        unclean: false,
        fills_to: None,
        error: None,
        error_message: None,
        since: None,
        retry_at: None,
    }
}

fn a_mirror() -> MirrorRow {
    MirrorRow {
        link_name: "east-west".into(),
        destination_cluster: "west".into(),
        mirror_topic_name: "orders".into(),
        source_topic_name: "orders".into(),
        num_partitions: 2,
        mirror_lags: vec![],
        mirror_status: "ACTIVE".into(),
        mirror_topic_error: "NO_ERROR".into(),
        mirror_topic_error_message: None,
        state_time_ms: 0,
        mirror_state_transition_errors: vec![],
        waiting_for: None,
    }
}

#[test]
fn describe_says_unknown_where_nothing_is_known() {
    let lag = |partition, state: &str, lag: Option<i64>| LagRow {
        partition,
        lag,
        source_end_offset: lag.map(|lag| lag + 10),
        state: state.into(),
        ..a_lag()
    };
    let parked = LagRow {
        error: Some("RECORD_TOO_LARGE".into()),
        error_message: Some("raise max.message.bytes".into()),
        retry_at: Some("2026-01-01T00:00:00.000Z".into()),
        ..lag(1, "PARKED", None)
    };
    let row = MirrorRow { mirror_lags: vec![lag(0, "RUNNING", Some(0)), parked], ..a_mirror() };
    let expected = "\
Mirror topic  orders on west
Source topic  orders
Link          east-west
Status        ACTIVE
Since         1970-01-01T00:00:00.000Z
Lag           unknown

PARTITION  STATE    SOURCE END  MIRROR END  LAG      GUARDED  NODE  ERROR, RETRY
0          RUNNING  10          10          0        yes      n1    -
1          PARKED   unknown     10          unknown  yes      n1    RECORD_TOO_LARGE: raise max.message.bytes, again at 2026-01-01T00:00:00.000Z";
    assert_eq!(mirror::describe(&row), expected);
}

#[test]
fn events_are_shown_oldest_first_with_who_asked() {
    let row = EventRow {
        number: 7,
        time_ms: 1_000,
        kind: "MIRROR_CHANGED".into(),
        cluster: Some("west".into()),
        link: Some("east-west".into()),
        topic: Some("orders".into()),
        node: None,
        from: Some("ACTIVE".into()),
        to: Some("FAILED".into()),
        cause: Some("FOREIGN_WRITE".into()),
        cause_message: Some("partition 0 at offset 5: another wrote".into()),
        asked_by: "NODE".into(),
        asked_at: Some("n1".into()),
    };
    let paused = EventRow {
        number: 6,
        kind: "LINK_PAUSED".into(),
        topic: None,
        from: None,
        to: None,
        cause: None,
        cause_message: None,
        asked_by: "OPERATOR".into(),
        ..row.clone()
    };
    let joined =
        EventRow { link: None, node: Some("n1".into()), asked_by: "COORDINATOR".into(), ..paused.clone() };
    let expected = "\
TIME                      EVENT           OF                FROM    TO      ASKED BY        CAUSE
1970-01-01T00:00:01.000Z  LINK_PAUSED     n1                -       -       coordinator     -
1970-01-01T00:00:01.000Z  LINK_PAUSED     east-west         -       -       operator at n1  -
1970-01-01T00:00:01.000Z  MIRROR_CHANGED  east-west/orders  ACTIVE  FAILED  n1              FOREIGN_WRITE: partition 0 at offset 5: another wrote";
    assert_eq!(events::table(&[row, paused, joined]), expected);
}

#[test]
fn transition_errors_are_shown_with_their_time() {
    let row = TransitionErrorRow { error_code: "A".into(), error_message: "b c".into(), time_ms: 1 };
    let expected = "TIME                      ERROR  MESSAGE\n1970-01-01T00:00:00.001Z  A      b c";
    assert_eq!(mirror::errors::table(&[row]), expected);
    assert!(parse("lockstep events --last 0").is_err());
    assert!(parse("lockstep mirror state-transition-error list orders --link l").is_ok());
}

#[test]
fn deleting_a_link_with_its_mirrors_names_them_and_the_loss() {
    let row = |topic: &str, status: &str, lag| MirrorRow {
        mirror_topic_name: topic.into(),
        mirror_status: status.into(),
        mirror_lags: vec![LagRow { lag, ..a_lag() }],
        ..a_mirror()
    };
    let rows = [row("a", "ACTIVE", Some(3)), row("b", "PAUSED", None), row("c", "PENDING_MIRROR", None)];
    let question = link::delete::question("l", &rows.iter().collect::<Vec<_>>());
    let expected = "Delete link 'l', and before that fail over a (3 offsets to lose), fail over b (unknown offsets to lose), \
                    forget c, which isn't set up? This is final.";
    assert_eq!(question, expected);
    assert_eq!(link::delete::question("l", &[]), "Delete link 'l'?");
    assert!(parse("lockstep link delete l --failover-mirrors --yes").is_ok());
}

#[test]
fn authorities_are_shown_with_who_is_late() {
    let row = |id: &str, signs, held_by: &[&str]| AuthorityRow {
        authority_id: id.into(),
        not_before: Some("2026-01-01T00:00:00Z".into()),
        not_after: None,
        signs,
        held_by: held_by.iter().map(|name| (*name).to_owned()).collect(),
        not_known_of: vec!["n3".into()],
    };
    let rows = [row("0a", false, &["n1", "n2"]), row("0b", true, &[])];
    let expected = "\
AUTHORITY  SIGNS  VALID FROM            VALID UNTIL  SIGNED FOR  NOT KNOWN OF
0a         no     2026-01-01T00:00:00Z  unknown      n1,n2       n3
0b         yes    2026-01-01T00:00:00Z  unknown      -           n3";
    assert_eq!(authority::table(&rows), expected);
    assert_eq!(authority::late(&rows, "0b"), ["n1", "n2", "n3 (doesn't say)"]);
    let done = [AuthorityRow { not_known_of: vec![], ..row("0b", true, &["n1"]) }];
    assert_eq!(authority::late(&done, "0b"), [""; 0]);
}

#[cfg(not(feature = "audit"))]
#[test]
fn without_the_audit_verify_says_how_to_get_it() {
    let Ok(Cli { command: Command::Verify(command) }) = parse("lockstep verify --link l") else {
        panic!("not verify")
    };
    let failure = command.run().expect_err("not built in");
    assert!(failure.is_usage(), "{failure:?}");
    assert_eq!(failure.message, "this lockstep was built without 'verify'");
    assert!(failure.hint.expect("a hint").ends_with("cargo build --release -p lockstep --features audit"));
}
