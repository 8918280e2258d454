import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { Repository } from '../../backends/contract/repository.js';
import { createAuthorizer, creationProblem, mayAdministerServer } from './access-rules.js';
import type { Principal, RepositoryAction, TokenScope } from './principal.js';

const repository = (
  isPublic: boolean,
  grants: Repository['access']['grants'] = {},
): Repository => ({
  id: 'r1',
  name: 'team/app',
  objectFormat: 'sha1',
  settings: {},
  access: { public: isPublic, grants },
  createdAtMs: 0,
  epoch: 1,
});

const repositories = {
  none: undefined,
  private: repository(false),
  public: repository(true),
  'private, granted read': repository(false, { alice: 'read' }),
  'private, granted write': repository(false, { alice: 'write' }),
  'private, granted admin': repository(false, { alice: 'admin' }),
  'public, granted write': repository(true, { alice: 'write' }),
} as const;

type State = keyof typeof repositories;

const byKey = (options: { admin?: boolean; canCreate?: boolean } = {}): Principal => ({
  kind: 'user',
  name: 'alice',
  admin: options.admin ?? false,
  canCreate: options.canCreate ?? true,
  via: { type: 'key', fingerprint: 'SHA256:x' },
});

const byToken = (
  scope: TokenScope,
  options: { admin?: boolean; canCreate?: boolean; pattern?: string } = {},
): Principal => ({
  kind: 'user',
  name: 'alice',
  admin: options.admin ?? false,
  canCreate: options.canCreate ?? true,
  via: { type: 'token', tokenId: 'aa', scope, repositoryPattern: options.pattern },
});

const principals = {
  anonymous: { kind: 'anonymous' },
  trusted: { kind: 'trusted' },
  key: byKey(),
  'key, may not create': byKey({ canCreate: false }),
  'admin key': byKey({ admin: true, canCreate: false }),
  'read token': byToken('read'),
  'write token': byToken('write'),
  'admin token': byToken('admin'),
  "admin's read token": byToken('read', { admin: true }),
  "admin's write token": byToken('write', { admin: true }),
  "admin's admin token": byToken('admin', { admin: true }),
  'write token, matching pattern': byToken('write', { pattern: 'team/*' }),
  'write token, other pattern': byToken('write', { pattern: 'other/*' }),
  "admin's admin token, other pattern": byToken('admin', { admin: true, pattern: 'other/*' }),
} as const satisfies Record<string, Principal>;

type Who = keyof typeof principals;

const actions: readonly RepositoryAction[] = ['read', 'write', 'admin', 'create'];

/**
 * One letter for each of read, write, admin, create: `+` allowed, `s` sign-in, `h` hidden, `d` denied.
 * `create` of an existing repository is never allowed.
 */
const expected: Record<Who, Record<State, string>> = {
  anonymous: row('ssss', 'ssss', '+ssd', 'ssss', 'ssss', 'ssss', '+ssd'),
  trusted: row('hhh+', '+++d', '+++d', '+++d', '+++d', '+++d', '+++d'),
  key: row('hhh+', 'hhhh', '+ddd', '+ddd', '++dd', '+++d', '++dd'),
  'key, may not create': row('hhhh', 'hhhh', '+ddd', '+ddd', '++dd', '+++d', '++dd'),
  'admin key': row('hhh+', '+++d', '+++d', '+++d', '+++d', '+++d', '+++d'),
  'read token': row('hhhh', 'hhhh', '+ddd', '+ddd', '+ddd', '+ddd', '+ddd'),
  'write token': row('hhh+', 'hhhh', '+ddd', '+ddd', '++dd', '++dd', '++dd'),
  'admin token': row('hhh+', 'hhhh', '+ddd', '+ddd', '++dd', '+++d', '++dd'),
  "admin's read token": row('hhhh', '+ddd', '+ddd', '+ddd', '+ddd', '+ddd', '+ddd'),
  "admin's write token": row('hhh+', '++dd', '++dd', '++dd', '++dd', '++dd', '++dd'),
  "admin's admin token": row('hhh+', '+++d', '+++d', '+++d', '+++d', '+++d', '+++d'),
  'write token, matching pattern': row('hhh+', 'hhhh', '+ddd', '+ddd', '++dd', '++dd', '++dd'),
  'write token, other pattern': row('hhhh', 'hhhh', '+ddd', 'hhhh', 'hhhh', 'hhhh', '+ddd'),
  "admin's admin token, other pattern": row('hhhh', 'hhhh', '+ddd', 'hhhh', 'hhhh', 'hhhh', '+ddd'),
};

function row(
  ...letters: readonly [string, string, string, string, string, string, string]
): Record<State, string> {
  return {
    none: letters[0],
    private: letters[1],
    public: letters[2],
    'private, granted read': letters[3],
    'private, granted write': letters[4],
    'private, granted admin': letters[5],
    'public, granted write': letters[6],
  };
}

function decisions(
  principal: Principal,
  target: Repository | undefined,
  autoCreate: boolean,
): string {
  const authorizer = createAuthorizer({ autoCreate });
  return actions
    .map((action) => {
      const decision = authorizer.decide(principal, action, 'team/app', target);
      if (decision.allowed) return '+';
      assert.notEqual(decision.reason, '');
      return { 'sign-in': 's', hidden: 'h', denied: 'd' }[decision.because];
    })
    .join('');
}

const entries = <K extends string, V>(record: Readonly<Record<K, V>>): [string, V][] =>
  Object.entries<V>(record);

describe('who may do what', () => {
  test('what is said of any push agrees with what is said of each', () => {
    for (const autoCreate of [true, false]) {
      const authorizer = createAuthorizer({ autoCreate });
      for (const [who, principal] of entries(principals)) {
        const any = authorizer.decideAnyPush(principal);
        assert.equal(any === undefined, who !== 'anonymous', who);
        if (any === undefined) continue;
        for (const [state, target] of entries(repositories)) {
          const action = target === undefined ? 'create' : 'write';
          const each = authorizer.decide(principal, action, 'team/app', target);
          const refused = !any.allowed && !each.allowed && each.because === any.because;
          assert.ok(refused, `${who}, ${state}`);
        }
      }
    }
  });

  for (const [who, principal] of entries(principals)) {
    const wanted = new Map(entries(expected)).get(who);
    test(who, () => {
      const actual = entries(repositories).map(([state, target]) => [
        state,
        decisions(principal, target, true),
      ]);
      assert.deepEqual(Object.fromEntries(actual), wanted);
    });
  }

  test('without autoCreate nobody creates by pushing, and nothing else changes', () => {
    for (const principal of Object.values(principals)) {
      for (const target of Object.values(repositories)) {
        const on = decisions(principal, target, true);
        const off = decisions(principal, target, false);
        assert.equal(off, on.replace(/\+$/, target === undefined ? 'h' : '+'));
      }
    }
  });

  test('what may not be seen is told as what does not exist', () => {
    const authorizer = createAuthorizer({ autoCreate: false });
    for (const principal of [principals.anonymous, principals.key, principals['read token']]) {
      for (const action of actions) {
        const absent = authorizer.decide(principal, action, 'team/app', undefined);
        const unseen = authorizer.decide(principal, action, 'team/app', repositories.private);
        assert.ok(!absent.allowed && !unseen.allowed);
        assert.equal(absent.because, unseen.because);
      }
    }
  });

  test('somebody unknown is told the same words of every name that is not public', () => {
    const told = [true, false].flatMap((autoCreate) => {
      const authorizer = createAuthorizer({ autoCreate });
      return [undefined, repositories.private].flatMap((target) =>
        actions.map((action) =>
          authorizer.decide(principals.anonymous, action, 'team/app', target),
        ),
      );
    });
    assert.equal(new Set(told.map((decision) => JSON.stringify(decision))).size, 1);
  });

  test('a user who is called like a property of every object has no grant by that', () => {
    const principal: Principal = {
      kind: 'user',
      name: 'constructor',
      admin: false,
      canCreate: true,
      via: { type: 'key', fingerprint: 'SHA256:x' },
    };
    assert.equal(decisions(principal, repositories.private, true), 'hhhh');
  });
});

const member = (
  grants: readonly { pattern: string; level: 'read' | 'write' | 'admin' }[],
  scope?: TokenScope,
): Principal => ({
  kind: 'user',
  name: 'alice',
  admin: false,
  canCreate: false,
  via:
    scope === undefined
      ? { type: 'key', fingerprint: 'SHA256:x' }
      : { type: 'token', tokenId: 'aa', scope, repositoryPattern: undefined },
  membership: { groups: ['crew'], grants },
});

describe('groups and patterns', () => {
  // read, write, admin, create of team/app: as in the table above
  const cases = [
    ['a group, without a grant', member([]), repository(false), 'hhhh'],
    ['a grant to the group', member([]), repository(false, { '@crew': 'write' }), '++dd'],
    ['a grant to another group', member([]), repository(false, { '@crews': 'write' }), 'hhhh'],
    [
      'the higher of the user and the group',
      member([]),
      repository(false, { '@crew': 'read', alice: 'admin' }),
      '+++d',
    ],
    [
      'the higher of the group and the user',
      member([]),
      repository(false, { '@crew': 'admin', alice: 'read' }),
      '+++d',
    ],
    ['a pattern', member([{ pattern: 'team/*', level: 'read' }]), repository(false), '+ddd'],
    [
      'another pattern',
      member([{ pattern: 'teams/*', level: 'admin' }]),
      repository(false),
      'hhhh',
    ],
    [
      'the highest of all',
      member([
        { pattern: 'team/*', level: 'read' },
        { pattern: 'team/app', level: 'admin' },
        { pattern: '**', level: 'write' },
      ]),
      repository(false, { '@crew': 'read' }),
      '+++d',
    ],
    [
      'capped by the scope of a token',
      member([{ pattern: 'team/*', level: 'admin' }], 'read'),
      repository(false),
      '+ddd',
    ],
    ['a pattern to come, read', member([{ pattern: 'team/*', level: 'write' }]), undefined, 'hhhh'],
    ['a pattern to come', member([{ pattern: 'team/*', level: 'admin' }]), undefined, 'hhh+'],
    [
      'a pattern to come, token',
      member([{ pattern: 'team/*', level: 'admin' }], 'read'),
      undefined,
      'hhhh',
    ],
  ] as const;
  for (const [desc, principal, target, wanted] of cases) {
    test(desc, () => assert.equal(decisions(principal, target, true), wanted));
  }
});

const machine = (...reach: Extract<Principal, { kind: 'machine' }>['reach']): Principal => ({
  kind: 'machine',
  name: 'deploy-key:SHA256:x',
  reach,
});

describe('machines', () => {
  const cases = [
    [
      'bound to it, read',
      machine({ repositoryId: 'r1', level: 'read' }),
      repository(false),
      '+ddd',
    ],
    [
      'bound to it, write',
      machine({ repositoryId: 'r1', level: 'write' }),
      repository(false),
      '++dd',
    ],
    [
      'bound to another',
      machine({ repositoryId: 'r2', level: 'write' }),
      repository(false),
      'hhhh',
    ],
    [
      'bound to another, public',
      machine({ repositoryId: 'r2', level: 'write' }),
      repository(true),
      '+ddd',
    ],
    ['by pattern', machine({ pattern: 'team/*', level: 'write' }), repository(false), '++dd'],
    ['by another pattern', machine({ pattern: 'x/*', level: 'admin' }), repository(false), 'hhhh'],
    ['without any reach', machine(), repository(false, { 'deploy-key:SHA256:x': 'admin' }), 'hhhh'],
    ['to come', machine({ pattern: '**', level: 'admin' }), undefined, 'hhhh'],
  ] as const;
  for (const [desc, principal, target, wanted] of cases) {
    test(desc, () => {
      assert.equal(decisions(principal, target, true), wanted);
      assert.equal(mayAdministerServer(principal), false);
    });
  }
});

test('an explicit creation is told why not', () => {
  assert.equal(creationProblem(principals.trusted, 'team/app'), undefined);
  assert.equal(creationProblem(principals.key, 'team/app'), undefined);
  assert.equal(creationProblem(principals['admin key'], 'team/app'), undefined);
  assert.match(creationProblem(principals.anonymous, 'team/app') ?? '', /sign in/);
  assert.match(
    creationProblem(principals['key, may not create'], 'team/app') ?? '',
    /may not create/,
  );
  assert.match(creationProblem(principals['read token'], 'team/app') ?? '', /scope read/);
  assert.match(
    creationProblem(principals['write token, other pattern'], 'team/app') ?? '',
    /pattern/,
  );
});

test('the server is administered by administrators, with a whole admin token or a key', () => {
  const may = entries(principals)
    .filter(([, principal]) => mayAdministerServer(principal))
    .map(([who]) => who);
  assert.deepEqual(may, ['trusted', 'admin key', "admin's admin token"]);
});
