use ::redis::aio::MultiplexedConnection;
use ::redis::{Cmd, ErrorKind, RedisError, ServerErrorKind, Value};

/// A Lua script with its digest, made once.
#[derive(Debug)]
pub struct Script {
    source: &'static str,
    sha1: String,
}

impl Script {
    /// Takes the source; nothing is sent to Redis before the first call.
    #[must_use]
    pub fn new(source: &'static str) -> Self {
        Self { source, sha1: ::redis::Script::new(source).get_hash().to_owned() }
    }

    /// Starts a call with its number of keys. Add the keys first, then the arguments.
    #[must_use]
    pub fn call(&self, keys: usize) -> Call<'_> {
        let mut command = Cmd::with_capacity(3 + keys * 4, 96 + keys * 128);
        command.arg("EVALSHA").arg(&self.sha1).arg(keys);
        Call { script: self, keys, command }
    }
}

/// One call of a script, ready to be sent.
#[derive(Debug)]
pub struct Call<'a> {
    script: &'a Script,
    keys: usize,
    command: Cmd,
}

impl Call<'_> {
    /// Adds a key, or an argument once all keys are there.
    pub fn arg(&mut self, arg: impl ::redis::ToRedisArgs) -> &mut Self {
        self.command.arg(arg);
        self
    }

    /// Runs it by digest, and with its source where Redis does not know the script (after a restart or a flush).
    pub(in crate::redis) async fn run(&self, connection: &mut MultiplexedConnection) -> Result<Value, RedisError> {
        let answer = connection.send_packed_command(&self.command).await.and_then(Value::extract_error);
        match answer {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                connection.send_packed_command(&self.with_source()).await.and_then(Value::extract_error)
            }
            answer => answer,
        }
    }

    fn with_source(&self) -> Cmd {
        let mut command = Cmd::new();
        command.arg("EVAL").arg(self.script.source).arg(self.keys);
        for arg in self.command.args_iter().skip(3) {
            if let ::redis::Arg::Simple(arg) = arg {
                command.arg(arg);
            }
        }
        command
    }
}
