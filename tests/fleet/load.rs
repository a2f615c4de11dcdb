//! Clients that never rest: direct calls, and calls that are run later, over both sidecars.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::corpus::Call;
use crate::harness::{Request, Response, Token};
use crate::tally::{Alarm, Answered, Tally};
use crate::wire::{Door, Loss};

/// A client gives up after this, and the test with it: nothing is dead for so long.
const GIVE_UP: Duration = Duration::from_secs(60);
/// Between two requests of one client.
const PACE: Duration = Duration::from_millis(8);
/// Tasks of one client that have not ended.
const OPEN: usize = 5;

/// What every client shares.
pub struct Load<'a> {
    pub doors: [SocketAddr; 2],
    pub calls: &'a [Call],
    pub tally: &'a Tally,
}

/// A task that was taken.
pub struct Taken {
    pub request: Request,
    pub id: String,
    pub call: usize,
    pub task_id: i64,
    /// Once it has ended.
    pub result: Value,
}

impl Load<'_> {
    fn connect(&self) -> [Door; 2] {
        self.doors.map(Door::new)
    }

    /// One request to one sidecar, with its place in the books.
    ///
    /// # Errors
    /// How the answer was lost; `None` where it is one that says that something is dead.
    pub fn ask(&self, doors: &mut [Door; 2], door: usize, request: &Request) -> Result<Response, Option<Loss>> {
        let began = self.tally.turn();
        let response = doors[door].ask(request).map_err(|loss| {
            self.tally.failed(began, if loss == Loss::Refused { "refused" } else { "cut" });
            Some(loss)
        })?;
        let status = response.status;
        let request_id = response.header("x-request-id").expect("every answer has one").to_owned();
        self.tally.answered(Answered { door, request_id, status });
        let failure = match status {
            500.. => format!("{status} {}", response.code().unwrap_or_default()),
            200 if response.json()["error"]["code"] == -32603 => "-32603".to_owned(),
            _ => return Ok(response),
        };
        self.tally.failed(began, failure);
        Err(None)
    }

    /// Asks one sidecar and then the other, until one of them answers.
    fn ask_both(&self, doors: &mut [Door; 2], first: usize, request: &Request) -> (usize, Response) {
        let began = Instant::now();
        for door in [first % 2, 1 - first % 2].into_iter().cycle() {
            if let Ok(response) = self.ask(doors, door, request) {
                return (door, response);
            }
            assert!(began.elapsed() < GIVE_UP, "no sidecar answers {}", request.target);
            std::thread::park_timeout(PACE);
        }
        unreachable!("it has no end")
    }

    /// Direct calls, one after the other, by turns over both sidecars.
    pub fn direct(&self, client: usize) {
        let _alarm = Alarm(self.tally);
        let token = Token::of(&format!("direct-{client}")).sign();
        let mut doors = self.connect();
        for number in 0.. {
            if self.tally.is_over() {
                return;
            }
            let call = &self.calls[(number * 3 + client * 17) % self.calls.len()];
            let id = format!("direct-{client}-{number}");
            let request = post("content", &token, &call.body(&id));
            let (door, answer) = self.ask_both(&mut doors, number, &request);
            assert_eq!(answer.status, 200, "{id}: {}", answer.text());
            assert_eq!(call.wrong(&id, &answer.json()), None);
            self.tally.right(door);
            std::thread::park_timeout(PACE);
        }
    }

    /// Tasks, each asked for by both sidecars at once, until the load is over; then until the last one has ended.
    pub fn dispatch(&self, client: usize) -> Vec<Taken> {
        let _alarm = Alarm(self.tally);
        let token = Token::of(&format!("dispatch-{client}")).sign();
        let mut doors = self.connect();
        let (mut open, mut ended) = (VecDeque::new(), Vec::new());
        for number in 0.. {
            if self.tally.is_over() {
                break;
            }
            open.push_back(self.submit(&token, client, number));
            self.tally.accepted.fetch_add(1, Ordering::SeqCst);
            while open.len() >= OPEN {
                let taken = open.pop_front().expect("there are some");
                ended.push(self.collect(&mut doors, taken, number));
            }
            std::thread::park_timeout(PACE);
        }
        ended.extend(open.into_iter().map(|taken| self.collect(&mut doors, taken, 0)));
        ended
    }

    /// Two requests with one key at the same time, each repeated until it is taken.
    fn submit(&self, token: &str, client: usize, number: usize) -> Taken {
        let call = (number * 5 + client * 29) % self.calls.len();
        let id = format!("task-{client}-{number}");
        let mut request = post("content", token, &self.calls[call].body(&id)).header("Idempotency-Key", &id);
        request.target.push_str("/dispatch");
        let answers: Vec<Value> = std::thread::scope(|scope| {
            let asking = [0, 1].map(|door| {
                let request = &request;
                scope.spawn(move || self.ask_both(&mut self.connect(), door, request).1)
            });
            let answers = asking.map(|asking| asking.join().expect("is answered"));
            for answer in &answers {
                assert!([200, 202].contains(&answer.status), "{id}: {} {}", answer.status, answer.text());
            }
            answers.iter().map(Response::json).collect()
        });
        assert_eq!(answers[0]["task_id"], answers[1]["task_id"], "{id} became two tasks: {answers:?}");
        // None, where the answer of the first one was lost on its way.
        let new = answers.iter().filter(|answer| answer["reused"] == false).count();
        assert!(new <= 1, "{id} was made twice: {answers:?}");
        let task_id = answers[0]["task_id"].as_i64().expect("a number");
        Taken { request, id, call, task_id, result: Value::Null }
    }

    /// Sends the request again until the task has ended; its result is the right one.
    fn collect(&self, doors: &mut [Door; 2], mut taken: Taken, first: usize) -> Taken {
        let began = Instant::now();
        loop {
            let (_, answer) = self.ask_both(doors, first, &taken.request);
            let body = answer.json();
            assert_eq!(body["task_id"], taken.task_id, "{}: {body}", taken.id);
            if answer.status == 200 {
                taken.result = self.checked(&taken, body);
                self.tally.completed.fetch_add(1, Ordering::SeqCst);
                return taken;
            }
            assert_eq!((answer.status, body["status"].as_str()), (202, Some("accepted")), "{}: {body}", taken.id);
            assert!(began.elapsed() < GIVE_UP, "{} is lost: {body}", taken.id);
            std::thread::park_timeout(PACE * 3);
        }
    }

    /// The result of a task that has ended, which must have completed.
    fn checked(&self, taken: &Taken, mut body: Value) -> Value {
        assert_eq!(body["status"], "completed", "{}: {body}", taken.id);
        let result = body["result"].take();
        assert_eq!(result["http_status"], 200, "{}: {result}", taken.id);
        assert_eq!(self.calls[taken.call].wrong(&taken.id, &result["response"]), None);
        result
    }

    /// Asks for a task that has ended once more: each sidecar tells the same result.
    pub fn confirm(&self, taken: &Taken) {
        let mut doors = self.connect();
        for door in 0..2 {
            let answer = self.ask(&mut doors, door, &taken.request).expect("nobody is dead any more");
            assert_eq!(self.checked(taken, answer.json()), taken.result, "{} has two results", taken.id);
        }
    }
}

/// A POST of JSON-RPC to a server.
pub fn post(server: &str, token: &str, body: &Value) -> Request {
    Request::new("POST", &format!("/api/v1/mcp/{server}"))
        .header("Content-Type", "application/json")
        .header("Accept", "application/json, text/event-stream")
        .header("Authorization", &format!("Bearer {token}"))
        .body(body.to_string())
}
