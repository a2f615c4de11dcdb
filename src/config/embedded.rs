//! The shipped files, as part of the program, and what `up` lays over them.

pub const SIDECAR: &str = include_str!("../../conf/sidecar.toml");
pub const EXECUTOR: &str = include_str!("../../conf/executor.toml");
pub const POLICY: &str = include_str!("../../conf/policy.toml");

/// What `up` overrides in the embedded policy.
pub const UP_OVERRIDES: &[(&str, &str)] = &[
    ("stream.enabled", "true"),
    ("auth.token.enabled", "true"),
    ("queue.driver", "\"own\""),
    ("compat.emcp_models", "true"),
    (
        "domain.models.allow",
        r#"["SiteTemplate", "SiteTmplvar", "SiteTmplvarContentvalue", "SiteSnippet", "SitePlugin", "SiteModule", "Category", "User", "UserAttribute", "UserRole", "Permissions", "PermissionsGroups", "RolePermissions"]"#,
    ),
];

/// The variable that holds the key of a process that speaks to itself; it is never set outside.
pub const LOCAL_KEY: &str = "MCP_SIDECAR_LOCAL_KEY";

/// What `stdio` and `test` lay over a policy: they speak as a token's caller, whatever is open to others.
pub const LOCAL_OVERRIDES: &[(&str, &str)] = &[
    ("mode.api", "true"),
    ("auth.mode", r#""sapi_jwt""#),
    ("auth.secret_envs", r#"["MCP_SIDECAR_LOCAL_KEY"]"#),
    ("auth.secret_files", "[]"),
];
