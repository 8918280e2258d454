import { adminOnly, repositoryAdmins, hooksOfApp, app, hook } from './cells.js';
import type { Row } from './row.js';

/** Rules, quotas and hooks. */
export const guardRows: readonly Row[] = [
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
];
