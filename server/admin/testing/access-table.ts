import { randomBytes } from 'node:crypto';

/*
 * The table of who may do what over the admin API: every endpoint, for every kind of principal. A cell is the HTTP
 * status. The type of a row keeps a cell from being forgotten, and `permissions.test.ts` keeps an endpoint from it.
 */

export const principals = [
  'anonymous',
  'unknown', // a token that does not exist
  'stranger', // a user without any grant
  'noCreate', // the same, who may not create repositories
  'reader', // grants on team/app
  'writer',
  'owner',
  'ownerWrite', // the owner with lesser tokens
  'ownerRead',
  'ownerOther', // ... limited to other/*
  'admin',
  'adminWrite', // the server administrator with lesser tokens
  'adminTeam', // ... limited to team/*
] as const;
export type PrincipalName = (typeof principals)[number];

export interface Row {
  readonly desc: string;
  readonly action: string;
  readonly request: (place: Place) => readonly [method: string, path: string, body?: object];
  readonly expected: readonly [
    ...[number, number, number, number, number, number, number],
    ...[number, number, number, number, number, number],
  ];
}

/** What a request may be about. `self` is the principal's own user name. */
export interface Place {
  readonly self: string;
  readonly ownKey: string;
  readonly victimKey: string;
  /** Of team/app. */
  readonly deployKey: string;
  readonly ownSigningKey: string;
  readonly victimSigningKey: string;
  readonly authority: string;
  readonly revocation: string;
  readonly tokenInUse: string;
  readonly otherToken: string;
  readonly victimToken: string;
  /** Of team/app, and of the server; each with a delivery that waits. */
  readonly webhook: string;
  readonly delivery: string;
  readonly serverWebhook: string;
  readonly serverDelivery: string;
}

/** Tokens of an issuer that are believed. */
export const trust = {
  issuer: 'https://issuer.example.org',
  audience: 'quorate',
  claims: { repository: 'acme/*' },
  repositories: 'team/*',
  level: 'read',
} as const;

const app = '/repositories/team%2Fapp';
const remote = { source: 'https://example.org/x.git' };
// columns: anonymous unknown | stranger noCreate | reader writer owner | ownerWrite ownerRead ownerOther | admin adminWrite adminTeam
const adminOnly = (ok: number): Row['expected'] => [
  401,
  401,
  403,
  403,
  403,
  403,
  403,
  403,
  403,
  403,
  ok,
  403,
  403,
];
const signedIn = (ok: number): Row['expected'] => [
  401,
  401,
  ok,
  ok,
  ok,
  ok,
  ok,
  ok,
  ok,
  ok,
  ok,
  ok,
  ok,
];
const ownWithAllRights = (ok: number): Row['expected'] => [
  401,
  401,
  ok,
  ok,
  ok,
  ok,
  ok,
  403,
  403,
  403,
  ok,
  403,
  403,
];
const othersUnseen = (ok: number): Row['expected'] => [
  401,
  401,
  404,
  404,
  404,
  404,
  404,
  404,
  404,
  404,
  ok,
  404,
  404,
];
const creators = (ok: number): Row['expected'] => [
  401,
  401,
  ok,
  403,
  ok,
  ok,
  ok,
  ok,
  403,
  403,
  ok,
  ok,
  ok,
];
const repositoryAdmins = (ok: number): Row['expected'] => [
  401,
  401,
  404,
  404,
  403,
  403,
  ok,
  403,
  403,
  404,
  ok,
  403,
  ok,
];

/** Programs on the server: for its administrators, also in a repository that another administers. */
const hooksOfApp = (ok: number): Row['expected'] => [
  401,
  401,
  404,
  404,
  403,
  403,
  403,
  403,
  403,
  404,
  ok,
  403,
  403,
];
const receiver = { url: 'https://ci.example.org/hook' };
const hook = { content: Buffer.from('#!/bin/sh\n').toString('base64') };

export const rows: readonly Row[] = [
  {
    desc: 'list users',
    action: 'user.list',
    request: () => ['GET', '/users'],
    expected: adminOnly(200),
  },
  {
    desc: 'create a user',
    action: 'user.create',
    request: () => ['POST', '/users', { name: 'new' }],
    expected: adminOnly(201),
  },
  {
    desc: 'disable a user',
    action: 'user.change',
    request: () => ['PATCH', '/users/victim', { disabled: true }],
    expected: adminOnly(200),
  },
  {
    desc: 'list groups',
    action: 'group.list',
    request: () => ['GET', '/groups'],
    expected: adminOnly(200),
  },
  {
    desc: 'create a group',
    action: 'group.create',
    request: () => ['POST', '/groups', { name: 'others' }],
    expected: adminOnly(201),
  },
  {
    desc: 'show a group',
    action: 'group.show',
    request: () => ['GET', '/groups/crew'],
    expected: adminOnly(200),
  },
  {
    desc: 'remove a group',
    action: 'group.remove',
    request: () => ['DELETE', '/groups/crew'],
    expected: adminOnly(200),
  },
  {
    desc: 'add a member',
    action: 'group.add-member',
    request: () => ['PUT', '/groups/crew/members/victim'],
    expected: adminOnly(200),
  },
  {
    desc: 'remove a member',
    action: 'group.remove-member',
    request: () => ['DELETE', '/groups/crew/members/reader'],
    expected: adminOnly(200),
  },
  {
    desc: 'list grants on patterns',
    action: 'grant.list',
    request: () => ['GET', '/grants'],
    expected: adminOnly(200),
  },
  {
    desc: 'grant on a pattern',
    action: 'grant.set',
    request: () => ['PUT', '/grants/team%2F*/victim', { level: 'write' }],
    expected: adminOnly(200),
  },
  {
    desc: 'take back a grant on a pattern',
    action: 'grant.remove',
    request: () => ['DELETE', '/grants/else%2F*/@crew'],
    expected: adminOnly(200),
  },
  {
    desc: 'list certificate authorities',
    action: 'authority.list',
    request: () => ['GET', '/certificate-authorities'],
    expected: adminOnly(200),
  },
  {
    desc: 'add a certificate authority',
    action: 'authority.add',
    request: () => ['POST', '/certificate-authorities', { key: newKey() }],
    expected: adminOnly(201),
  },
  {
    desc: 'remove a certificate authority',
    action: 'authority.remove',
    request: ({ authority }) => [
      'DELETE',
      `/certificate-authorities/${encodeURIComponent(authority)}`,
    ],
    expected: adminOnly(200),
  },
  {
    desc: 'list revocations',
    action: 'revocation.list',
    request: () => ['GET', '/revocations'],
    expected: adminOnly(200),
  },
  {
    desc: 'revoke certificates',
    action: 'revocation.add',
    request: () => ['POST', '/revocations', { kind: 'key-id', value: 'ann' }],
    expected: adminOnly(201),
  },
  {
    desc: 'take a revocation back',
    action: 'revocation.remove',
    request: ({ revocation }) => ['DELETE', `/revocations/${revocation}`],
    expected: adminOnly(200),
  },
  {
    desc: 'list issuers',
    action: 'issuer.list',
    request: () => ['GET', '/openid-issuers'],
    expected: adminOnly(200),
  },
  {
    desc: 'trust an issuer',
    action: 'issuer.set',
    request: () => ['PUT', '/openid-issuers/forge', trust],
    expected: adminOnly(200),
  },
  {
    desc: 'remove an issuer',
    action: 'issuer.remove',
    request: () => ['DELETE', '/openid-issuers/ci'],
    expected: adminOnly(200),
  },
  {
    desc: 'list keys',
    action: 'key.list',
    request: () => ['GET', '/keys'],
    expected: signedIn(200),
  },
  {
    desc: 'list own keys',
    action: 'key.list',
    request: ({ self }) => ['GET', `/keys?user=${self}`],
    expected: signedIn(200),
  },
  {
    desc: "list another's keys",
    action: 'key.list',
    request: () => ['GET', '/keys?user=victim'],
    expected: adminOnly(200),
  },
  {
    desc: 'add an own key',
    action: 'key.add',
    request: ({ self }) => ['POST', '/keys', { user: self, key: newKey() }],
    expected: ownWithAllRights(201),
  },
  {
    desc: 'add a key to another',
    action: 'key.add',
    request: () => ['POST', '/keys', { user: 'victim', key: newKey() }],
    expected: adminOnly(201),
  },
  {
    desc: 'remove an own key',
    action: 'key.remove',
    request: ({ ownKey }) => ['DELETE', `/keys/${encodeURIComponent(ownKey)}`],
    expected: ownWithAllRights(200),
  },
  {
    desc: "remove another's key",
    action: 'key.remove',
    request: ({ victimKey }) => ['DELETE', `/keys/${encodeURIComponent(victimKey)}`],
    expected: othersUnseen(200),
  },
  {
    desc: 'list tokens',
    action: 'token.list',
    request: () => ['GET', '/tokens'],
    expected: signedIn(200),
  },
  {
    desc: "list another's tokens",
    action: 'token.list',
    request: () => ['GET', '/tokens?user=victim'],
    expected: adminOnly(200),
  },
  {
    desc: 'create an own token of scope read',
    action: 'token.create',
    request: ({ self }) => ['POST', '/tokens', { user: self, scope: 'read' }],
    expected: [401, 401, 201, 201, 201, 201, 201, 201, 201, 403, 201, 201, 403],
  },
  {
    desc: 'create an own token of scope write',
    action: 'token.create',
    request: ({ self }) => ['POST', '/tokens', { user: self, scope: 'write' }],
    expected: [401, 401, 201, 201, 201, 201, 201, 201, 403, 403, 201, 201, 403],
  },
  {
    desc: 'create an own token of scope admin',
    action: 'token.create',
    request: ({ self }) => ['POST', '/tokens', { user: self, scope: 'admin' }],
    expected: ownWithAllRights(201),
  },
  {
    desc: 'create an own token for other/*',
    action: 'token.create',
    request: ({ self }) => [
      'POST',
      '/tokens',
      { user: self, scope: 'read', repositoryPattern: 'other/*' },
    ],
    expected: [401, 401, 201, 201, 201, 201, 201, 201, 201, 201, 201, 201, 403],
  },
  {
    desc: 'create a token for another',
    action: 'token.create',
    request: () => ['POST', '/tokens', { user: 'victim', scope: 'read' }],
    expected: adminOnly(201),
  },
  {
    desc: 'revoke the token in use',
    action: 'token.revoke',
    request: ({ tokenInUse }) => ['DELETE', `/tokens/${tokenInUse}`],
    expected: signedIn(200),
  },
  {
    desc: 'revoke another own token',
    action: 'token.revoke',
    request: ({ otherToken }) => ['DELETE', `/tokens/${otherToken}`],
    expected: ownWithAllRights(200),
  },
  {
    desc: "revoke another's token",
    action: 'token.revoke',
    request: ({ victimToken }) => ['DELETE', `/tokens/${victimToken}`],
    expected: othersUnseen(200),
  },
  {
    desc: 'list repositories',
    action: 'repository.list',
    request: () => ['GET', '/repositories'],
    expected: [200, 401, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200],
  },
  {
    desc: 'create a repository',
    action: 'repository.create',
    request: () => ['POST', '/repositories', { name: 'team/new' }],
    expected: creators(201),
  },
  {
    desc: 'fork a private repository',
    action: 'repository.fork',
    request: () => ['POST', `${app}/fork`, { name: 'team/forked' }],
    expected: [401, 401, 404, 404, 201, 201, 201, 201, 403, 404, 201, 201, 201],
  },
  {
    desc: 'fork a public repository',
    action: 'repository.fork',
    request: () => ['POST', '/repositories/open%2Flib/fork', { name: 'team/forked' }],
    expected: creators(201),
  },
  {
    desc: 'fork to where the token does not reach',
    action: 'repository.fork',
    request: () => ['POST', `${app}/fork`, { name: 'elsewhere/app' }],
    expected: [401, 401, 404, 404, 201, 201, 201, 201, 403, 404, 201, 201, 403],
  },
  {
    desc: 'show a private repository',
    action: 'repository.show',
    request: () => ['GET', app],
    expected: [401, 401, 404, 404, 200, 200, 200, 200, 200, 404, 200, 200, 200],
  },
  {
    desc: 'show a public repository',
    action: 'repository.show',
    request: () => ['GET', '/repositories/open%2Flib'],
    expected: [200, 401, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200],
  },
  {
    desc: 'show a repository that does not exist',
    action: 'repository.show',
    request: () => ['GET', '/repositories/team%2Fnone'],
    expected: othersUnseen(404),
  },
  {
    desc: 'change a private repository',
    action: 'repository.set',
    request: () => ['PATCH', app, { public: true }],
    expected: repositoryAdmins(200),
  },
  {
    desc: 'change a public repository',
    action: 'repository.set',
    request: () => ['PATCH', '/repositories/open%2Flib', { public: false }],
    expected: [401, 401, 403, 403, 403, 403, 403, 403, 403, 403, 200, 403, 403],
  },
  {
    desc: 'change the default branch',
    action: 'repository.set-head',
    request: () => ['PUT', `${app}/head`, { branch: 'trunk' }],
    expected: repositoryAdmins(200),
  },
  {
    desc: 'grant',
    action: 'repository.grant',
    request: () => ['PUT', `${app}/grants/victim`, { level: 'write' }],
    expected: repositoryAdmins(200),
  },
  {
    desc: 'grant to a group',
    action: 'repository.grant',
    request: () => ['PUT', `${app}/grants/@crew`, { level: 'write' }],
    expected: repositoryAdmins(200),
  },
  {
    desc: 'revoke a grant',
    action: 'repository.revoke',
    request: () => ['DELETE', `${app}/grants/reader`],
    expected: repositoryAdmins(200),
  },
  {
    desc: 'list deploy keys',
    action: 'deploy-key.list',
    request: () => ['GET', `${app}/deploy-keys`],
    expected: repositoryAdmins(200),
  },
  {
    desc: 'add a deploy key',
    action: 'deploy-key.add',
    request: () => ['POST', `${app}/deploy-keys`, { key: newKey(), write: true }],
    expected: repositoryAdmins(201),
  },
  {
    desc: 'remove a deploy key',
    action: 'deploy-key.remove',
    request: ({ deployKey }) => ['DELETE', `${app}/deploy-keys/${encodeURIComponent(deployKey)}`],
    expected: repositoryAdmins(200),
  },
  {
    desc: 'list rules of a repository',
    action: 'rule.list',
    request: () => ['GET', `${app}/rules`],
    expected: repositoryAdmins(200),
  },
  {
    desc: 'set a rule of a repository',
    action: 'rule.set',
    request: () => ['PUT', `${app}/rules/main`, { refs: 'refs/heads/main', noDeletion: true }],
    expected: repositoryAdmins(201),
  },
  {
    desc: 'remove a rule of a repository',
    action: 'rule.remove',
    request: () => ['DELETE', `${app}/rules/kept`],
    expected: repositoryAdmins(200),
  },
  {
    desc: 'list quotas',
    action: 'quota.list',
    request: () => ['GET', '/quotas'],
    expected: adminOnly(200),
  },
  {
    desc: 'see the quota of a repository',
    action: 'quota.show',
    request: () => ['GET', `${app}/quota`],
    expected: repositoryAdmins(200),
  },
  {
    desc: 'set the quota of a repository',
    action: 'quota.set',
    request: () => ['PUT', `${app}/quota`, { bytes: 1024 }],
    expected: adminOnly(200),
  },
  {
    desc: 'remove the quota of a repository',
    action: 'quota.remove',
    request: () => ['DELETE', `${app}/quota`],
    expected: adminOnly(200),
  },
  {
    desc: 'see the quota of an owner',
    action: 'quota.show',
    request: () => ['GET', '/owners/team/quota'],
    expected: adminOnly(200),
  },
  {
    desc: 'set the quota of an owner',
    action: 'quota.set',
    request: () => ['PUT', '/owners/team/quota', { bytes: 1024 }],
    expected: adminOnly(200),
  },
  {
    desc: 'remove the quota of an owner',
    action: 'quota.remove',
    request: () => ['DELETE', '/owners/team/quota'],
    expected: adminOnly(200),
  },
  {
    desc: 'list rules of the server',
    action: 'rule.list',
    request: () => ['GET', '/rules'],
    expected: adminOnly(200),
  },
  {
    desc: 'set a rule of the server',
    action: 'rule.set',
    request: () => ['PUT', '/rules/all', { refs: '**', noDeletion: true }],
    expected: adminOnly(201),
  },
  {
    desc: 'remove a rule of the server',
    action: 'rule.remove',
    request: () => ['DELETE', '/rules/kept'],
    expected: adminOnly(200),
  },
  {
    desc: 'list hooks of a repository',
    action: 'hook.list',
    request: () => ['GET', `${app}/hooks`],
    expected: hooksOfApp(200),
  },
  {
    desc: 'set a hook of a repository',
    action: 'hook.set',
    request: () => ['PUT', `${app}/hooks/update`, hook],
    expected: hooksOfApp(201),
  },
  {
    desc: 'show a hook of a repository',
    action: 'hook.show',
    request: () => ['GET', `${app}/hooks/pre-receive`],
    expected: hooksOfApp(200),
  },
  {
    desc: 'remove a hook of a repository',
    action: 'hook.remove',
    request: () => ['DELETE', `${app}/hooks/pre-receive`],
    expected: hooksOfApp(200),
  },
  {
    desc: 'list hooks of the server',
    action: 'hook.list',
    request: () => ['GET', '/hooks'],
    expected: adminOnly(200),
  },
  {
    desc: 'set a hook of the server',
    action: 'hook.set',
    request: () => ['PUT', '/hooks/update', hook],
    expected: adminOnly(201),
  },
  {
    desc: 'show a hook of the server',
    action: 'hook.show',
    request: () => ['GET', '/hooks/pre-receive'],
    expected: adminOnly(200),
  },
  {
    desc: 'remove a hook of the server',
    action: 'hook.remove',
    request: () => ['DELETE', '/hooks/pre-receive'],
    expected: adminOnly(200),
  },
  {
    desc: 'list webhooks of a repository',
    action: 'webhook.list',
    request: () => ['GET', `${app}/webhooks`],
    expected: repositoryAdmins(200),
  },
  {
    desc: 'add a webhook to a repository',
    action: 'webhook.add',
    request: () => ['POST', `${app}/webhooks`, receiver],
    expected: repositoryAdmins(201),
  },
  {
    desc: 'change a webhook of a repository',
    action: 'webhook.change',
    request: ({ webhook }) => ['PATCH', `${app}/webhooks/${webhook}`, { events: ['push'] }],
    expected: repositoryAdmins(200),
  },
  {
    desc: "change the secret of a repository's webhook",
    action: 'webhook.rotate-secret',
    request: ({ webhook }) => ['POST', `${app}/webhooks/${webhook}/secret`, {}],
    expected: repositoryAdmins(200),
  },
  {
    desc: 'remove a webhook of a repository',
    action: 'webhook.remove',
    request: ({ webhook }) => ['DELETE', `${app}/webhooks/${webhook}`],
    expected: repositoryAdmins(200),
  },
  {
    desc: 'test a webhook of a repository',
    action: 'webhook.test',
    request: ({ webhook }) => ['POST', `${app}/webhooks/${webhook}/test`],
    expected: repositoryAdmins(201),
  },
  {
    desc: 'list deliveries of a repository',
    action: 'webhook.deliveries',
    request: ({ webhook }) => ['GET', `${app}/webhooks/${webhook}/deliveries`],
    expected: repositoryAdmins(200),
  },
  {
    desc: 'show a delivery of a repository',
    action: 'webhook.delivery',
    request: ({ webhook, delivery }) => [
      'GET',
      `${app}/webhooks/${webhook}/deliveries/${delivery}`,
    ],
    expected: repositoryAdmins(200),
  },
  {
    desc: 'send a delivery of a repository again',
    action: 'webhook.redeliver',
    request: ({ webhook, delivery }) => [
      'POST',
      `${app}/webhooks/${webhook}/deliveries/${delivery}/redeliver`,
    ],
    expected: repositoryAdmins(200),
  },
  {
    desc: "remove the server's webhook by way of a repository",
    action: 'webhook.remove',
    request: ({ serverWebhook }) => ['DELETE', `${app}/webhooks/${serverWebhook}`],
    expected: repositoryAdmins(404),
  },
  {
    desc: "show the server's delivery by way of a repository",
    action: 'webhook.delivery',
    request: ({ serverWebhook, serverDelivery }) => [
      'GET',
      `${app}/webhooks/${serverWebhook}/deliveries/${serverDelivery}`,
    ],
    expected: repositoryAdmins(404),
  },
  {
    desc: 'list webhooks of the server',
    action: 'webhook.list',
    request: () => ['GET', '/webhooks'],
    expected: adminOnly(200),
  },
  {
    desc: 'add a webhook to the server',
    action: 'webhook.add',
    request: () => ['POST', '/webhooks', receiver],
    expected: adminOnly(201),
  },
  {
    desc: 'change a webhook of the server',
    action: 'webhook.change',
    request: ({ serverWebhook }) => ['PATCH', `/webhooks/${serverWebhook}`, { events: ['push'] }],
    expected: adminOnly(200),
  },
  {
    desc: "change the secret of the server's webhook",
    action: 'webhook.rotate-secret',
    request: ({ serverWebhook }) => ['POST', `/webhooks/${serverWebhook}/secret`, {}],
    expected: adminOnly(200),
  },
  {
    desc: 'remove a webhook of the server',
    action: 'webhook.remove',
    request: ({ serverWebhook }) => ['DELETE', `/webhooks/${serverWebhook}`],
    expected: adminOnly(200),
  },
  {
    desc: 'test a webhook of the server',
    action: 'webhook.test',
    request: ({ serverWebhook }) => ['POST', `/webhooks/${serverWebhook}/test`],
    expected: adminOnly(201),
  },
  {
    desc: 'list deliveries of the server',
    action: 'webhook.deliveries',
    request: ({ serverWebhook }) => ['GET', `/webhooks/${serverWebhook}/deliveries`],
    expected: adminOnly(200),
  },
  {
    desc: 'show a delivery of the server',
    action: 'webhook.delivery',
    request: ({ serverWebhook, serverDelivery }) => [
      'GET',
      `/webhooks/${serverWebhook}/deliveries/${serverDelivery}`,
    ],
    expected: adminOnly(200),
  },
  {
    desc: 'send a delivery of the server again',
    action: 'webhook.redeliver',
    request: ({ serverWebhook, serverDelivery }) => [
      'POST',
      `/webhooks/${serverWebhook}/deliveries/${serverDelivery}/redeliver`,
    ],
    expected: adminOnly(200),
  },
  {
    desc: 'list signing keys',
    action: 'signing-key.list',
    request: () => ['GET', '/signing-keys'],
    expected: signedIn(200),
  },
  {
    desc: "list another's signing keys",
    action: 'signing-key.list',
    request: () => ['GET', '/signing-keys?user=victim'],
    expected: adminOnly(200),
  },
  {
    desc: 'add an own signing key',
    action: 'signing-key.add',
    request: ({ self }) => ['POST', '/signing-keys', { user: self, key: newOpenpgpKey() }],
    expected: ownWithAllRights(201),
  },
  {
    desc: 'add a signing key to another',
    action: 'signing-key.add',
    request: () => ['POST', '/signing-keys', { user: 'victim', key: newOpenpgpKey() }],
    expected: adminOnly(201),
  },
  {
    desc: 'remove an own signing key',
    action: 'signing-key.remove',
    request: ({ ownSigningKey }) => ['DELETE', `/signing-keys/${ownSigningKey}`],
    expected: ownWithAllRights(200),
  },
  {
    desc: "remove another's signing key",
    action: 'signing-key.remove',
    request: ({ victimSigningKey }) => ['DELETE', `/signing-keys/${victimSigningKey}`],
    expected: othersUnseen(200),
  },
  {
    desc: 'rename',
    action: 'repository.rename',
    request: () => ['POST', `${app}/rename`, { name: 'team/renamed' }],
    expected: repositoryAdmins(200),
  },
  {
    desc: 'rename to where the token does not reach',
    action: 'repository.rename',
    request: () => ['POST', `${app}/rename`, { name: 'elsewhere/app' }],
    expected: [401, 401, 404, 404, 403, 403, 200, 403, 403, 404, 200, 403, 403],
  },
  {
    desc: 'delete',
    action: 'repository.delete',
    request: () => ['DELETE', app],
    expected: repositoryAdmins(200),
  },
  {
    desc: 'maintain',
    action: 'repository.maintain',
    request: () => ['POST', `${app}/maintain`],
    expected: repositoryAdmins(200),
  },
  {
    desc: 'import into an existing repository',
    action: 'repository.import',
    request: () => ['POST', `${app}/import`, remote],
    expected: repositoryAdmins(200),
  },
  {
    desc: 'import into a new repository',
    action: 'repository.import',
    request: () => ['POST', '/repositories/team%2Fnew/import', remote],
    expected: creators(200),
  },
  {
    desc: "import from the server's disk",
    action: 'repository.import',
    request: () => ['POST', '/repositories/team%2Fnew/import', { source: '/srv/git/x.git' }],
    expected: adminOnly(200),
  },
  {
    desc: "import over the server's SSH identity",
    action: 'repository.import',
    request: () => ['POST', '/repositories/team%2Fnew/import', { source: 'ssh://git@h/x.git' }],
    expected: adminOnly(200),
  },
  {
    desc: 'the OpenAPI document',
    action: 'openapi',
    request: () => ['GET', '/openapi.json'],
    expected: [200, 401, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200],
  },
  {
    desc: 'the audit log',
    action: 'audit.list',
    request: () => ['GET', '/audit'],
    expected: adminOnly(200),
  },
  {
    desc: 'storage nodes',
    action: 'node.list',
    request: () => ['GET', '/nodes'],
    expected: adminOnly(200),
  },
  ...(['drain', 'undrain', 'remove'] as const).map((verb): Row => ({
    desc: `${verb} a storage node`,
    action: `node.${verb}`,
    request: () => ['POST', `/nodes/node-1/${verb}`],
    expected: adminOnly(200),
  })),
  {
    desc: 'what a recovery would do',
    action: 'cluster.recover',
    request: () => ['POST', '/cluster/recover', {}],
    expected: adminOnly(200),
  },
  {
    desc: 'the copies of a repository',
    action: 'repository.replicas',
    request: () => ['GET', `${app}/replicas`],
    expected: adminOnly(200),
  },
  {
    desc: 'move a repository',
    action: 'repository.move',
    request: () => ['POST', `${app}/move`, { nodes: null }],
    expected: adminOnly(200),
  },
  {
    desc: 'what is left of a repository whose stores were lost',
    action: 'repository.recover',
    request: () => ['POST', `${app}/recover`, {}],
    expected: adminOnly(200),
  },
  {
    desc: 'verify the copies of a repository',
    action: 'repository.verify',
    request: () => ['POST', `${app}/verify`],
    expected: adminOnly(200),
  },
  {
    desc: 'explain a push',
    action: 'push.explain',
    request: () => ['GET', '/pushes/some-push'],
    expected: adminOnly(200),
  },
  { desc: 'status', action: 'status', request: () => ['GET', '/status'], expected: adminOnly(200) },
  {
    desc: 'locks',
    action: 'lock.list',
    request: () => ['GET', '/locks'],
    expected: adminOnly(200),
  },
  {
    desc: 'follow the audit log',
    action: 'audit.follow',
    request: () => ['GET', '/audit/follow'],
    expected: adminOnly(200),
  },
  {
    desc: 'host keys',
    action: 'host-key.list',
    request: () => ['GET', '/host-keys'],
    expected: adminOnly(200),
  },
];

/** A public key line that nobody has yet. */
export function newKey(): string {
  const blob = Buffer.concat([field(Buffer.from('ssh-ed25519')), field(randomBytes(32))]);
  return `ssh-ed25519 ${blob.toString('base64')} test`;
}

/** The armor and the first byte of an OpenPGP public key, which is all that is looked at before gpg. */
export function newOpenpgpKey(): string {
  const body = Buffer.concat([Buffer.of(0x99), randomBytes(60)]).toString('base64');
  return `-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n${body}\n=abcd\n-----END PGP PUBLIC KEY BLOCK-----\n`;
}

function field(bytes: Uint8Array): Buffer {
  return Buffer.concat([Buffer.of(0, 0, 0, bytes.length), bytes]);
}
