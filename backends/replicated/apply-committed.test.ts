import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Logger } from '../contract/environment.js';
import { QuorateError } from '../contract/errors.js';
import { until } from '../contract/testing/until.js';
import { packOf, pushRequest, zeroOid } from '../local/testing/local-fixture.js';
import { silentLogger } from '../coordination/test-environment.js';
import { away, openReplicaSet, unhurried } from './testing/replica-set.js';

const failures = [
  {
    desc: 'a store that went away between commit and apply is a warning, with the name of its node',
    fails: away,
    level: 'warn',
  },
  {
    desc: 'a store that is there and cannot apply a push is an error, with the name of its node',
    fails: () => Promise.reject(new QuorateError('internal', 'a file cannot be read')),
    level: 'error',
  },
] as const;

for (const { desc, fails, level } of failures) {
  test(desc, async (context) => {
    const set = await openReplicaSet(3);
    context.after(() => set.close());
    const said: { readonly level: string; readonly node: unknown }[] = [];
    const hear =
      (at: string): Logger['warn'] =>
      (facts, message) => {
        if (message !== 'a committed push could not be applied yet') return;
        assert.ok(typeof facts === 'object');
        said.push({ level: at, node: Reflect.get(facts, 'node') });
      };
    const logger: Logger = { ...silentLogger, warn: hear('warn'), error: hear('error') };
    const { backend } = await set.frontEnd({ clock: unhurried, logger });
    const repository = await backend.repositories.create({
      name: 'team/app',
      defaultBranch: 'main',
      objectFormat: 'sha1',
      settings: {},
      access: { public: false, grants: {} },
    });
    for (const store of set.stores) {
      store.interfere = (call, go) => (call === 'apply' ? fails() : go());
    }
    const tip = await set.commit('one');
    const { refs } = await backend.push(
      repository,
      pushRequest([{ ref: 'refs/heads/main', oldOid: zeroOid, newOid: tip }], {
        pack: await packOf(set.source, [tip], []),
      }),
    );
    assert.equal(refs[0]?.status, 'ok');
    await until('it is said', () => said.length > 0);
    assert.equal(said[0]?.level, level);
    assert.match(String(said[0]?.node), /^node-\d$/);
  });
}
