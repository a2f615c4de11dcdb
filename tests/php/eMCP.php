<?php
// A site's settings as its operator wrote them.
return [
    'enable' => true,
    'mode' => ['internal' => false, 'api' => true],
    'route' => ['manager_prefix' => '/office/', 'api_prefix' => 'mcp'],
    'auth' => [
        'mode' => 'sapi_jwt',
        'require_scopes' => true,
        'scope_map' => ['mcp:read' => ['initialize', 'ping', 'tools/list'], 'mcp:call' => 'tools/call', 'site."all"' => ['*']],
    ],
    'acl' => ['permission' => 'emcp'],
    'queue' => ['driver' => 'stask', 'failover' => 'never'],
    'rate_limit' => ['enabled' => true, 'per_minute' => env('EMCP_PER_MINUTE', 90)],
    'limits' => ['max_payload_kb' => '512', 'max_result_items' => 50],
    'stream' => ['enabled' => true, 'max_stream_seconds' => 30, 'heartbeat_seconds' => 5],
    'logging' => ['channel' => 'mcp-audit', 'redact_keys' => ['token', 'pin']],
    'security' => ['deny_tools' => ['evo.model.*'], 'enable_write_tools' => false, 'sandbox' => 'on'],
    'actor' => ['mode' => 'service', 'service_username' => 'MCP', 'service_role' => 'MCP', 'block_login' => true],
    'idempotency' => ['header' => 'Idempotency-Key', 'ttl_seconds' => 3600, 'storage' => 'stask_meta'],
    'domain' => [
        'content' => ['max_depth' => 3],
        'models' => ['allow' => ['EvolutionCMS\Models\SiteTemplate', 'User', 'SiteUnknown']],
    ],
    'listener' => function () {
        return 1;
    },
];
