import { adminOnly, app } from './cells.js';
import type { Row } from './row.js';

/** The server, its audit log and its cluster. */
export const serverRows: readonly Row[] = [
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
