use crate::protocol::Id;

/// The body of a transport error: `{"error":{"code":…,"message":…,"trace_id":…}}`.
#[must_use]
pub fn transport_error(code: &str, message: &str, trace_id: &str) -> Vec<u8> {
    let _ = (code, message, trace_id);
    unimplemented!()
}

/// A JSON-RPC error; `data_code` becomes `error.data.code`. The id is left out when unknown.
#[must_use]
pub fn rpc_error(id: &Id<'_>, code: i32, message: &str, data_code: Option<&str>) -> Vec<u8> {
    let _ = (id, code, message, data_code);
    unimplemented!()
}
