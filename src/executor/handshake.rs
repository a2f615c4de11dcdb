//! `initialize`: which revision is spoken, and who is speaking (emcp.md 7.1).

use rmcp::model::{
    CustomResult, ErrorData, Implementation, InitializeResult, PromptsCapability, ProtocolVersion, ResourcesCapability,
    ServerCapabilities, ServerResult, ToolsCapability,
};
use serde::Deserialize;
use serde_json::{Value, json};

/// The revisions that are spoken, the preferred one first.
const VERSIONS: [ProtocolVersion; 4] = [
    ProtocolVersion::V_2025_11_25,
    ProtocolVersion::V_2025_06_18,
    ProtocolVersion::V_2025_03_26,
    ProtocolVersion::V_2024_11_05,
];
/// The first revision that gets [`INSTRUCTIONS`].
const INSTRUCTED: ProtocolVersion = ProtocolVersion::V_2025_06_18;
const INSTRUCTIONS: &str = "Reads the documents and the building blocks of a content site. Start with \
    evo.content.root_tree or evo.content.search; lists are paged by limit and offset.";

/// What a client asks for. Whatever else it tells about itself is accepted unread.
#[derive(Deserialize)]
pub(in crate::executor) struct Hello {
    #[serde(rename = "protocolVersion")]
    version: Option<Value>,
}

/// The server's side of the handshake.
///
/// # Errors
/// -32602 with the revisions that are spoken, when the client asks for another one.
pub(in crate::executor) fn initialize(hello: Hello, toolset_version: &str) -> Result<ServerResult, ErrorData> {
    let version = match &hello.version {
        None => Some(&VERSIONS[0]),
        Some(requested) => VERSIONS.iter().find(|version| requested.as_str() == Some(version.as_str())),
    };
    let Some(version) = version else {
        let data = json!({"supported": VERSIONS, "requested": hello.version});
        return Err(ErrorData::invalid_params("Unsupported protocol version", Some(data)));
    };
    let mut result = InitializeResult::new(capabilities())
        .with_server_info(Implementation::new("eMCP Content Server", "1.0.0"))
        .with_protocol_version(version.clone());
    if *version >= INSTRUCTED {
        result = result.with_instructions(INSTRUCTIONS);
    }
    // The members that only eMCP's clients look for, and that the library's closed types have no place for.
    let mut result = serde_json::to_value(result).expect("the result holds text keys only");
    result["capabilities"]["evo"] = json!({"toolsetVersion": toolset_version});
    result["serverInfo"]["platform"] = "eMCP".into();
    result["serverInfo"]["platformVersion"] = env!("CARGO_PKG_VERSION").into();
    Ok(ServerResult::CustomResult(CustomResult(result)))
}

fn capabilities() -> ServerCapabilities {
    let mut tools = ToolsCapability::default();
    let mut resources = ResourcesCapability::default();
    let mut prompts = PromptsCapability::default();
    tools.list_changed = Some(false);
    resources.list_changed = Some(false);
    prompts.list_changed = Some(false);
    let mut capabilities = ServerCapabilities::default();
    capabilities.tools = Some(tools);
    capabilities.resources = Some(resources);
    capabilities.prompts = Some(prompts);
    capabilities
}
