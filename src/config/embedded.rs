//! The shipped files, as part of the program, and what `up` lays over them.

pub const SIDECAR: &str = include_str!("../../conf/sidecar.toml");
pub const EXECUTOR: &str = include_str!("../../conf/executor.toml");
pub const POLICY: &str = include_str!("../../conf/policy.toml");

/// What `up` overrides in the embedded policy.
pub const UP_OVERRIDES: &[(&str, &str)] = &[
    ("stream.enabled", "true"),
    ("queue.driver", "\"own\""),
    ("compat.emcp_models", "true"),
    (
        "domain.models.allow",
        r#"["SiteTemplate", "SiteTmplvar", "SiteTmplvarContentvalue", "SiteSnippet", "SitePlugin", "SiteModule", "Category", "User", "UserAttribute", "UserRole", "Permissions", "PermissionsGroups", "RolePermissions"]"#,
    ),
];
