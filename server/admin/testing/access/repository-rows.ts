import {
  adminOnly,
  othersUnseen,
  creators,
  repositoryAdmins,
  app,
  remote,
  newKey,
} from './cells.js';
import type { Row } from './row.js';

/** Repositories, and who may do what with them. */
export const repositoryRows: readonly Row[] = [
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
];
