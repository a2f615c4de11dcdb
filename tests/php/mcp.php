<?php
return [
    'redirect_domains' => ['*'],
    'servers' => [
        [
            'handle' => 'content',
            'transport' => 'web',
            'route' => '/mcp/content',
            'class' => EvolutionCMS\eMCP\Servers\ContentServer::class,
            'enabled' => true,
            'auth' => 'sapi_jwt',
            'scopes' => ['mcp:read', 'mcp:call'],
            'limits' => ['max_payload_kb' => 64],
            'rate_limit' => ['per_minute' => 12],
            'security' => ['deny_tools' => ['evo.content.search']],
            'scope_map' => ['site "read"' => ['*']],
        ],
        [
            'handle' => 'content-local',
            'transport' => 'local',
            'class' => EvolutionCMS\eMCP\Servers\ContentServer::class,
            'enabled' => true,
        ],
        ['handle' => 'shop', 'transport' => 'web', 'class' => App\Mcp\Servers\ShopServer::class, 'enabled' => true],
    ],
];
