//! The person at the nodes' API: registers clusters, makes links and mirrors, pauses, resumes, deletes,
//! drains nodes and removes them; one request at a time, from a host of its own, at one node as long as that
//! answers, then at another.
//!
//! What it says to the judge is what answers say, and no more: that it was done, wasn't, or isn't known.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use catalog::NodeId;
use tokio::sync::oneshot;

use crate::asked::{self, Asked};
use crate::http::{self, Answer, Lost};
use crate::judge::{Judge, Seen};
use crate::node::Seat;
use crate::options::Options;
use crate::requests::{self, Request};
use crate::time::Time;
use crate::view::View;
use crate::wishes::Wishes;

pub const HOST: &str = "operator";

/// Before a node that couldn't be read at is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(200);
/// Then it goes to another node.
const READS_MAX: usize = 2;
/// Above what consensus waits for a Raft leader.
const READ_MAX: Duration = Duration::from_secs(6);
/// Then a person gives up what isn't answered. Above what consensus waits, below what the API may wait for
/// brokers.
const PATIENCE: Duration = Duration::from_secs(8);
/// Longer than this it doesn't wait before it asks another node, whatever an answer says.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(2);

/// As the API's description has them.
const NO_LINK: u64 = 40_404;
const NOT_FOUND: u64 = 404;
const IN_DOUBT: u64 = 50_301;

/// Cheap to clone.
#[derive(Clone)]
pub struct Operator(Arc<Mutex<State>>);

struct State {
    wishes: Wishes,
    is_done: bool,
    /// Wants nothing any more.
    rests: bool,
}

/// What an answer says, or that there is none.
#[derive(Debug, PartialEq)]
enum Outcome {
    Done,
    /// With what code, and why.
    Refused(u64, String),
    /// And it never will be.
    NotDone,
    Unknown,
    /// What no request may be answered with.
    Wrong,
}

/// Where the next request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Here,
    /// Once it is known what there is.
    HereAfterRead,
    Elsewhere,
}

impl Operator {
    pub fn new(options: &Options, time: Time) -> Self {
        let wishes = Wishes::new(options, time);
        Self(Arc::new(Mutex::new(State { wishes, is_done: false, rests: false })))
    }

    /// Everything it wanted was answered, and is as it wanted.
    pub fn is_done(&self) -> bool {
        self.state().is_done
    }

    /// What is read now is what is judged.
    pub fn rest(&self) {
        self.state().rests = true;
    }

    /// This member is to be removed.
    pub fn is_to_remove(&self, node: NodeId, lost: bool) {
        self.state().wishes.is_to_remove(node, lost);
    }

    /// # Errors
    /// What no request may be answered with.
    pub async fn work(self, seats: Vec<Arc<Seat>>, judge: Judge) -> turmoil::Result {
        let (mut place, mut settled) = (0, None::<View>);
        loop {
            let seat = &seats[place];
            let Some(view) = settled.take() else {
                settled = settle(seat).await;
                if settled.is_none() {
                    place = (place + 1) % seats.len();
                }
                continue;
            };
            let talk = Talk { seat, view: &view, judge: &judge };
            let next = self.ask_next(&talk).await?;
            match next {
                Next::Here => settled = Some(view),
                Next::HereAfterRead => {}
                Next::Elsewhere => {
                    place = (place + 1) % seats.len();
                    tracing::info!("operator: goes to {}", seats[place].name);
                }
            }
        }
    }

    async fn ask_next(&self, talk: &Talk<'_>) -> turmoil::Result<Next> {
        let pause = self.state().wishes.pause_now(&talk.catalog().catalog);
        tokio::time::sleep(pause).await;
        let found = talk.catalog();
        let wish = {
            let mut state = self.state();
            let wish = if state.rests { None } else { state.wishes.next(&found.catalog) };
            state.is_done = wish.is_none() && !state.wishes.waits_for_removal();
            wish
        };
        let Some(wish) = wish else {
            return Ok(if talk.is_over() { Next::HereAfterRead } else { Next::Here });
        };
        let next = talk.ask(&wish).await?;
        if next != Next::Here {
            return Ok(next);
        }
        let look = self.state().wishes.look(&talk.catalog().catalog);
        match look {
            Some(look) => talk.ask(&look).await,
            None => Ok(next),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is seen there afterwards holds whatever was acknowledged before. None when it can't be read here.
async fn settle(seat: &Seat) -> Option<View> {
    for _ in 0..READS_MAX {
        if let Some(view) = seat.view() {
            let (done, told) = oneshot::channel();
            let is_asked = view.reads.try_send(done).is_ok();
            if is_asked && tokio::time::timeout(READ_MAX, told).await.is_ok_and(|told| told.is_ok()) {
                return Some(view);
            }
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
    None
}

/// With one process of a node, as far as it knows.
struct Talk<'a> {
    seat: &'a Seat,
    view: &'a View,
    judge: &'a Judge,
}

impl Talk<'_> {
    /// As applied there last.
    fn catalog(&self) -> Arc<consensus::Applied> {
        self.view.applied.borrow().clone()
    }

    /// Another process may have answered.
    fn is_over(&self) -> bool {
        self.seat.last_process() != Some(self.view.process)
    }

    async fn ask(&self, request: &Request) -> turmoil::Result<Next> {
        let name = self.seat.name;
        tracing::info!("operator: asks {name}: {request}");
        if !request.asked.is_empty() {
            self.judge.see(Seen::Asking);
        }
        if let [asked] = &request.asked[..] {
            self.judge.see(Seen::Submitting(asked));
        }
        let late = |_| Err(Lost::NoAnswer(std::io::ErrorKind::TimedOut.into()));
        let answer = tokio::time::timeout(PATIENCE, http::ask(name, request)).await.unwrap_or_else(late);
        match &answer {
            Ok(answer) => tell(request, answer),
            Err(Lost::NoConnection(error)) => {
                tracing::info!("operator: no connection to {name}: {}", error.kind())
            }
            Err(Lost::NoAnswer(error)) => tracing::info!("operator: no answer of {name}: {}", error.kind()),
        }
        let outcome = outcome(&answer);
        if outcome == Outcome::Wrong {
            return Err(format!("the API of {name} answers {answer:?} to {request}").into());
        }
        if request.asked.len() > 1 {
            self.judge_each(request, &answer, &outcome);
        } else if !request.asked.is_empty() {
            self.judge(request, &outcome);
        } else if let Some(answer) = answer.as_ref().ok().filter(|answer| answer.status == 200) {
            self.judge_list(request, answer);
        }
        Ok(match outcome {
            Outcome::Done | Outcome::Refused(..) if self.is_over() => Next::HereAfterRead,
            Outcome::Done | Outcome::Refused(..) => Next::Here,
            Outcome::NotDone | Outcome::Unknown | Outcome::Wrong => {
                let seconds = answer.ok().and_then(|answer| answer.retry_after_seconds).unwrap_or_default();
                tokio::time::sleep(Duration::from_secs(seconds).min(RETRY_AFTER_MAX)).await;
                Next::Elsewhere
            }
        })
    }

    fn judge(&self, request: &Request, outcome: &Outcome) {
        match outcome {
            Outcome::Done => {
                let seen = self.catalog();
                self.judge.see(Seen::Acknowledged((!self.is_over()).then_some(&*seen)));
            }
            // A process that began meanwhile may not know yet what there is.
            Outcome::Refused(code, why)
                if !self.is_over() && (!request.has_other_reasons || [NO_LINK, NOT_FOUND].contains(code)) =>
            {
                self.judge.see(Seen::Refused(*code, why));
            }
            Outcome::Refused(..) | Outcome::NotDone => self.judge.see(Seen::NotProposed),
            Outcome::Unknown | Outcome::Wrong => {}
        }
    }

    /// Of what is asked for at once each has an answer. None comes in between: the operator asks nothing else.
    fn judge_each(&self, request: &Request, answer: &Result<Answer, Lost>, outcome: &Outcome) {
        let rows = answer.as_ref().map(rows).unwrap_or_default();
        let mut done = Vec::new();
        for asked in &request.asked {
            let name = asked.mirror().map(|mirror| mirror.topic.as_str()).unwrap_or_default();
            match rows.get(name) {
                Some(None) => done.push(asked.clone()),
                Some(Some((code, why))) => {
                    self.judge.see(Seen::Submitting(asked));
                    self.judge(request, &Outcome::Refused(*code, why.clone()));
                }
                None if *outcome == Outcome::Unknown => self.judge.see(Seen::Submitting(asked)),
                None => {}
            }
        }
        if !done.is_empty() {
            self.judge.see(Seen::Submitting(&Asked::Several(done)));
            self.judge(request, &Outcome::Done);
        }
    }

    /// Every node lists what was acknowledged before it was read at.
    fn judge_list(&self, request: &Request, answer: &Answer) {
        if request.target != requests::MIRRORS || self.is_over() {
            return;
        }
        let text = |row: &serde_json::Value, name: &str| row[name].as_str().unwrap_or_default().to_owned();
        let rows = answer.body["data"].as_array().into_iter().flatten();
        let named = rows.map(|row| {
            let [link, topic, source] =
                ["link_name", "mirror_topic_name", "source_topic_name"].map(|name| text(row, name));
            asked::mirror(&link, &topic, &source)
        });
        self.judge.see(Seen::Listed(&named.collect::<BTreeSet<String>>()));
    }
}

/// By mirror topic: with what code each was refused, and why, if it was.
fn rows(answer: &Answer) -> BTreeMap<&str, Option<(u64, String)>> {
    let rows = answer.body["data"].as_array().into_iter().flatten();
    let refused = |row: &serde_json::Value| {
        let why = || row["error_message"].as_str().unwrap_or_default().to_owned();
        row["error_code"].as_u64().map(|code| (code, why()))
    };
    rows.filter_map(|row| Some((row["mirror_topic_name"].as_str()?, refused(row)))).collect()
}

/// One line an answer.
fn tell(request: &Request, answer: &Answer) {
    let (status, Request { method, target, .. }) = (answer.status, request);
    match outcome_of(answer) {
        Outcome::Refused(code, why) => tracing::info!("operator: refused: {status} ({code}) {why}"),
        Outcome::Done => tracing::info!("operator: {status} to {method} {target}"),
        _ => {
            let (code, why) = answer.error();
            tracing::info!("operator: {status} ({code}) to {method} {target}: {why}");
        }
    }
    let body = &answer.body;
    if body["topic_deleted"] == true {
        tracing::info!("operator: topic {} is deleted", body["mirror_topic_name"]);
    } else if let Some(why) = body["error_message"].as_str() {
        tracing::info!("operator: {why}");
    }
}

fn outcome(answer: &Result<Answer, Lost>) -> Outcome {
    match answer {
        Ok(answer) => outcome_of(answer),
        Err(Lost::NoConnection(_)) => Outcome::NotDone,
        Err(Lost::NoAnswer(_)) => Outcome::Unknown,
    }
}

fn outcome_of(answer: &Answer) -> Outcome {
    let (code, message) = answer.error();
    // Of what is done to several mirrors at once, each has a row; here it is one.
    let row = &answer.body["data"][0];
    match (answer.status, row["error_code"].as_u64()) {
        (200..=299, Some(code)) => {
            Outcome::Refused(code, row["error_message"].as_str().unwrap_or_default().to_owned())
        }
        (200..=299, None) => Outcome::Done,
        (400..=499, _) => Outcome::Refused(code, message.to_owned()),
        (503, _) if code == IN_DOUBT => Outcome::Unknown,
        (503, _) => Outcome::NotDone,
        _ => Outcome::Wrong,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(status: u16, body: serde_json::Value) -> Outcome {
        outcome_of(&Answer { status, retry_after_seconds: None, body })
    }

    #[test]
    fn an_answer_says_no_more_than_it_says() {
        let error = |code: u64| json!({"error_code": code, "message": "why"});
        assert_eq!(of(201, json!({"name": "north"})), Outcome::Done);
        assert_eq!(of(204, serde_json::Value::Null), Outcome::Done);
        assert_eq!(of(200, json!({"data": [{"error_code": null}]})), Outcome::Done);
        let refused = Outcome::Refused(409, "why".into());
        assert_eq!(of(200, json!({"data": [{"error_code": 409, "error_message": "why"}]})), refused);
        assert_eq!(of(409, error(409)), refused);
        assert_eq!(of(503, error(503)), Outcome::NotDone);
        assert_eq!(of(503, error(IN_DOUBT)), Outcome::Unknown);
        assert_eq!(of(500, error(500)), Outcome::Wrong);
        let timed_out = || std::io::ErrorKind::TimedOut.into();
        assert_eq!(outcome(&Err(Lost::NoConnection(timed_out()))), Outcome::NotDone);
        assert_eq!(outcome(&Err(Lost::NoAnswer(timed_out()))), Outcome::Unknown);
    }
}
