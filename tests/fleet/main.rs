//! Two sidecars, two executors and three workers, each a process of its own, on one real database and one real Redis,
//! under load without a pause, while each of the nine is killed in turn and started again; one worker is stopped until
//! others have ended its task, and one says that a task is done when another run of it has begun. Once over our own
//! tables on MariaDB, and once, a shorter play, over sTask's on PostgreSQL.
//!
//! What holds: no accepted task is lost and none completes twice, no answer is wrong, a call that fails fails as
//! documented and only while something is dead that it needs, rate limits admit exactly what they say, and audit,
//! metrics and executors agree as far as a killed process can still be asked ([`books`] says how far that is).

#[path = "../databases/data.rs"]
mod data;
#[expect(dead_code, unused_imports, reason = "made for tests/it, which uses all of it")]
#[path = "../it/harness/mod.rs"]
mod harness;
#[expect(dead_code, reason = "made for tests/process, which uses all of it")]
#[path = "../process/part.rs"]
mod part;
#[expect(dead_code, reason = "made for tests/databases, which uses all of it")]
#[path = "../databases/schema.rs"]
mod schema;
#[expect(dead_code, reason = "made for tests/databases, which uses all of it")]
#[path = "../databases/server.rs"]
mod server;
#[expect(dead_code, reason = "made for tests/databases, which uses all of it")]
#[path = "../databases/site.rs"]
mod site;
#[path = "../databases/stask.rs"]
mod stask;

mod books;
mod corpus;
mod limited;
mod load;
mod members;
mod tables;
mod tally;
mod turns;
mod wire;
