import assert from 'node:assert/strict';
import { Readable } from 'node:stream';
import { test } from 'node:test';
import { QuorateError } from '../contract/errors.js';
import {
  create,
  createRepository,
  fetchPack,
  mustPush,
  push,
  reading,
  refsOf,
  rejectsWith,
  remove,
  update,
  verdicts,
  zeroOid,
  type BackendSpace,
} from './backend-harness.js';

const main = 'refs/heads/main';

/** What a push does and what it refuses. */
export function defineBackendPushes(space: () => BackendSpace): void {
  test('branches and tags are created, moved and deleted', async () => {
    const { source } = space();
    const repository = await createRepository(space());
    const one = await source.commit('one');
    const two = await source.commit('two', one);
    const tag = await source.tag(one, 'v1');
    const first = await mustPush(space(), repository, {
      commands: [create(main, one), create('refs/tags/v1', tag), create('refs/tags/light', one)],
    });
    assert.deepEqual(first.refs[0], { ref: main, status: 'ok', oldOid: zeroOid, newOid: one });
    await reading(space(), repository, ({ snapshot }) => {
      assert.deepEqual(snapshot.refs, [
        { name: main, oid: one },
        { name: 'refs/tags/light', oid: one },
        { name: 'refs/tags/v1', oid: tag, peeled: one },
      ]);
      assert.ok(snapshot.hasTip(tag));
      assert.ok(!snapshot.hasTip(two));
    });
    await mustPush(space(), repository, {
      commands: [update(main, one, two), remove('refs/tags/light', one)],
      have: [one],
    });
    assert.deepEqual(await refsOf(space(), repository), { [main]: two, 'refs/tags/v1': tag });
  });

  test('deleting what is not there succeeds and changes nothing', async () => {
    const { source } = space();
    const repository = await createRepository(space());
    const one = await source.commit('one');
    const absent = { ref: 'refs/heads/absent', oldOid: zeroOid, newOid: zeroOid };
    await mustPush(space(), repository, { commands: [create(main, one), absent] });
    const alone = await push(space(), repository, { commands: [absent] });
    assert.deepEqual(alone.refs, [{ ...absent, status: 'ok' }]);
    assert.deepEqual(await refsOf(space(), repository), { [main]: one });
  });

  test('the order of the answer is that of the commands', async () => {
    const { source } = space();
    const repository = await createRepository(space());
    const one = await source.commit('order');
    const refs = ['refs/heads/z', 'refs/heads/a', 'refs/heads/m'];
    const result = await push(space(), repository, {
      commands: refs.map((ref) => create(ref, one)),
      refused: new Map([['refs/heads/a', 'no such luck']]),
    });
    assert.deepEqual(
      result.refs.map(({ ref }) => ref),
      refs,
    );
    assert.deepEqual(result.refs[1], {
      ref: 'refs/heads/a',
      status: 'refused',
      reason: 'no such luck',
    });
    assert.deepEqual(Object.keys(await refsOf(space(), repository)), [
      'refs/heads/m',
      'refs/heads/z',
    ]);
  });

  test('a branch is forced, unless the repository denies it', async () => {
    const { backend, source } = space();
    const repository = await createRepository(space());
    const one = await source.commit('force one');
    const other = await source.commit('force other');
    await mustPush(space(), repository, { commands: [create(main, one)] });
    await mustPush(space(), repository, { commands: [update(main, one, other)] });
    const denying = await backend.repositories.update(repository.id, () => ({
      settings: { 'receive.denyNonFastForwards': 'true' },
    }));
    const denied = await push(space(), denying, {
      commands: [update(main, other, one)],
      have: [one],
    });
    assert.deepEqual(verdicts(denied), { [main]: 'refused' });
    assert.deepEqual(await refsOf(space(), repository), { [main]: other });
  });

  test('deletions are denied as the settings say; the current branch stays by default', async () => {
    const { backend, source } = space();
    const repository = await createRepository(space());
    const one = await source.commit('deny');
    const commands = [create(main, one), create('refs/heads/a', one), create('refs/heads/b', one)];
    await mustPush(space(), repository, { commands });
    const both = await push(space(), repository, {
      commands: [remove(main, one), remove('refs/heads/a', one)],
    });
    assert.deepEqual(verdicts(both), { [main]: 'refused', 'refs/heads/a': 'ok' });
    const denying = await backend.repositories.update(repository.id, () => ({
      settings: { 'receive.denyDeletes': 'true' },
    }));
    const denied = await push(space(), denying, { commands: [remove('refs/heads/b', one)] });
    assert.deepEqual(verdicts(denied), { 'refs/heads/b': 'refused' });
    for (const [word, told] of [
      ['false', ''],
      ['ignore', ''],
      ['warn', 'warning: deleting the current branch\n'],
    ] as const) {
      const allowing = await backend.repositories.update(repository.id, () => ({
        settings: { 'receive.denyDeletes': null, 'receive.denyDeleteCurrent': word },
      }));
      let heard = '';
      const progress = (text: Uint8Array): void => {
        heard += Buffer.from(text).toString('latin1');
      };
      await mustPush(space(), allowing, { commands: [remove(main, one)], progress });
      assert.equal(heard, told, word);
      assert.deepEqual(await refsOf(space(), repository), { 'refs/heads/b': one });
      await mustPush(space(), allowing, { commands: [create(main, one)], have: [one] });
    }
  });

  const stale = [
    { desc: 'a stale old value', command: (one: string, two: string) => update(main, two, one) },
    { desc: 'creating what exists', command: (_: string, two: string) => create(main, two) },
    { desc: 'a name below a ref', command: (one: string) => create(`${main}/sub`, one) },
    { desc: 'a name above a ref', command: (one: string) => create('refs/heads/deep', one) },
  ];
  for (const { desc, command } of stale) {
    for (const atomic of [false, true]) {
      test(`${desc} is refused, and ${atomic ? 'nothing of an atomic push happens' : 'the rest goes on'}`, async () => {
        const { source } = space();
        const repository = await createRepository(space());
        const one = await source.commit('stale one');
        const two = await source.commit('stale two', one);
        const before = { 'refs/heads/deep/er': one, [main]: one };
        await mustPush(space(), repository, {
          commands: [create(main, one), create('refs/heads/deep/er', one)],
        });
        const bad = command(one, two);
        const result = await push(space(), repository, {
          commands: [create('refs/heads/good', two), bad],
          have: [one],
          atomic,
        });
        assert.equal(verdicts(result)[bad.ref], 'refused');
        assert.equal(verdicts(result)['refs/heads/good'], atomic ? 'refused' : 'ok');
        const after = await refsOf(space(), repository);
        assert.deepEqual(after, atomic ? before : { ...before, 'refs/heads/good': two });
      });
    }
  }

  test('an atomic push of which something was refused before does nothing', async () => {
    const { source } = space();
    const repository = await createRepository(space());
    const one = await source.commit('atomic refused');
    const result = await push(space(), repository, {
      commands: [create('refs/heads/a', one), create('refs/heads/b', one)],
      refused: new Map([['refs/heads/b', 'no']]),
      atomic: true,
    });
    assert.deepEqual(verdicts(result), { 'refs/heads/a': 'refused', 'refs/heads/b': 'refused' });
    assert.deepEqual(await refsOf(space(), repository), {});
  });

  test('a branch at an object that is there already needs an empty pack only', async () => {
    const { source } = space();
    const repository = await createRepository(space());
    const one = await source.commit('empty pack');
    await mustPush(space(), repository, { commands: [create(main, one)] });
    await mustPush(space(), repository, {
      commands: [create('refs/heads/copy', one)],
      have: [one],
    });
    assert.deepEqual(await refsOf(space(), repository), { [main]: one, 'refs/heads/copy': one });
  });

  const broken = [
    { desc: 'no pack at all', pack: () => Readable.from([Buffer.from('this is no pack')]) },
    { desc: 'nothing', pack: () => Readable.from([]) },
    {
      desc: 'a truncated pack',
      pack: (whole: Buffer) => Readable.from([whole.subarray(0, whole.length - 30)]),
    },
    {
      desc: 'a flipped bit',
      pack: (whole: Buffer) => {
        const copy = Buffer.from(whole);
        copy[copy.length >> 1] = (copy[copy.length >> 1] ?? 0) ^ 0x10;
        return Readable.from([copy]);
      },
    },
  ];
  for (const { desc, pack } of broken) {
    test(`${desc} is refused and leaves nothing`, async () => {
      const { source } = space();
      const repository = await createRepository(space());
      const one = await source.commit('x'.repeat(5000));
      const whole = await source.pack([one]);
      const result = await push(space(), repository, {
        commands: [create(main, one)],
        pack: pack(whole),
      });
      assert.notEqual(result.unpack, 'ok');
      assert.deepEqual(verdicts(result), { [main]: 'refused' });
      assert.deepEqual(await refsOf(space(), repository), {});
      const stats = await space().backend.repositories.stats(repository.id);
      assert.deepEqual([stats.packCount, stats.looseObjectCount], [0, 0]);
      await mustPush(space(), repository, { commands: [create(main, one)] });
    });
  }

  test('a tip whose history is not all there is refused', async () => {
    const { source } = space();
    const repository = await createRepository(space());
    const one = await source.commit('lacking one');
    const two = await source.commit('lacking two', one);
    const result = await push(space(), repository, { commands: [create(main, two)], have: [one] });
    assert.deepEqual(verdicts(result), { [main]: 'refused' });
    assert.deepEqual(await refsOf(space(), repository), {});
  });

  test('objects that fsck complains of are refused, unless the complaint is allowed', async () => {
    const { backend, source } = space();
    const repository = await createRepository(space());
    const text = `tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\nauthor A <a> 1 +0000\ncommitter <a> 1 +0000\n\nx\n`;
    await source.gitWithInput('', 'hash-object', '-w', '-t', 'tree', '--stdin');
    const odd = (
      await source.gitWithInput(text, 'hash-object', '-w', '-t', 'commit', '--literally', '--stdin')
    )
      .toString()
      .trim();
    const refused = await push(space(), repository, { commands: [create(main, odd)] });
    assert.notEqual(refused.unpack, 'ok');
    const lenient = await backend.repositories.update(repository.id, () => ({
      settings: { 'receive.fsck.ignore': 'missingNameBeforeEmail' },
    }));
    await mustPush(space(), lenient, { commands: [create(main, odd)] });
  });

  test('a pack beyond receive.maxInputSize is refused', async () => {
    const { source } = space();
    const repository = await createRepository(space(), {
      settings: { 'receive.maxInputSize': '1k' },
    });
    const noise = Array.from({ length: 2000 }, (_, index) => (index * 7919) % 65536).join(' ');
    const large = await source.commit(noise);
    const result = await push(space(), repository, { commands: [create(main, large)] });
    assert.notEqual(result.unpack, 'ok');
    assert.deepEqual(await refsOf(space(), repository), {});
  });

  test('a client that leaves in the middle of its pack changes nothing', async () => {
    const { source } = space();
    const repository = await createRepository(space());
    const one = await source.commit('y'.repeat(10_000));
    const whole = await source.pack([one]);
    const leaving = new AbortController();
    async function* halfOf(): AsyncGenerator<Uint8Array> {
      yield whole.subarray(0, whole.length >> 1);
      leaving.abort();
      // What a listener's stream does then.
      await new Promise((resolve) => setImmediate(resolve));
      throw new Error('aborted');
    }
    const pushing = push(space(), repository, {
      commands: [create(main, one)],
      pack: halfOf(),
      signal: leaving.signal,
    });
    await assert.rejects(pushing);
    assert.deepEqual(await refsOf(space(), repository), {});
    await mustPush(space(), repository, { commands: [create(main, one)] });
  });

  test('a pack whose source fails changes nothing', async () => {
    const { source } = space();
    const repository = await createRepository(space());
    const one = await source.commit('z'.repeat(10_000));
    const whole = await source.pack([one]);
    async function* failing(): AsyncGenerator<Uint8Array> {
      yield whole.subarray(0, 100);
      await Promise.reject(new QuorateError('resource-exhausted', 'too much was sent'));
    }
    const commands = [create(main, one)];
    const told = await push(space(), repository, { commands, pack: failing() }).then(
      ({ unpack }) => unpack,
      String,
    );
    assert.match(told, /too much was sent/);
    assert.deepEqual(await refsOf(space(), repository), {});
  });

  test('a client that leaves without a word, while its pack is awaited, changes nothing', async () => {
    const { source } = space();
    const repository = await createRepository(space());
    const one = await source.commit('w'.repeat(10_000));
    const whole = await source.pack([one]);
    const leaving = new AbortController();
    let asked = 0;
    const silent = new Readable({
      read() {
        asked += 1;
        if (asked === 1) this.push(whole.subarray(0, 100));
        // The start of the pack was taken; more is wanted, and never comes.
        else setImmediate(() => leaving.abort());
      },
    });
    const pushing = push(space(), repository, {
      commands: [create(main, one)],
      pack: silent,
      signal: leaving.signal,
    });
    await rejectsWith(pushing, 'cancelled');
    silent.destroy();
    assert.deepEqual(await refsOf(space(), repository), {});
  });

  test('a signal that was aborted before changes nothing', async () => {
    const { source } = space();
    const repository = await createRepository(space());
    const one = await source.commit('aborted before');
    const pushing = push(space(), repository, {
      commands: [create(main, one)],
      signal: AbortSignal.abort(),
    });
    await rejectsWith(pushing, 'cancelled');
    assert.deepEqual(await refsOf(space(), repository), {});
  });

  test('pushes to different refs at once all succeed; of those to one ref, one does', async () => {
    const { source } = space();
    const repository = await createRepository(space());
    const base = await source.commit('race base');
    await mustPush(space(), repository, { commands: [create(main, base)] });
    const tips = await Promise.all(
      Array.from({ length: 8 }, (_, index) => source.commit(`race ${index}`, base)),
    );
    const apart = tips.map((tip, index) =>
      push(space(), repository, { commands: [create(`refs/heads/b${index}`, tip)], have: [base] }),
    );
    for (const result of await Promise.all(apart)) {
      assert.ok(result.refs.every(({ status }) => status === 'ok'));
    }
    const together = await Promise.all(
      tips.map((tip) =>
        push(space(), repository, { commands: [update(main, base, tip)], have: [base] }),
      ),
    );
    const winners = together.flatMap(({ refs }) => refs).filter(({ status }) => status === 'ok');
    assert.equal(winners.length, 1);
    const refs = await refsOf(space(), repository);
    assert.equal(refs[main], winners[0]?.status === 'ok' ? winners[0].newOid : '');
    assert.equal(Object.keys(refs).length, 9);
  });

  test('a push of a thousand refs', async () => {
    const { source } = space();
    const repository = await createRepository(space());
    const tip = await source.commit('a thousand');
    const commands = Array.from({ length: 1000 }, (_, index) =>
      create(`refs/heads/topic/${index}`, tip),
    );
    await mustPush(space(), repository, { commands });
    assert.equal(Object.keys(await refsOf(space(), repository)).length, 1000);
  });

  test('push options are taken', async () => {
    const { source } = space();
    const repository = await createRepository(space());
    const one = await source.commit('options');
    await mustPush(space(), repository, {
      commands: [create(main, one)],
      pushOptions: ['ci.skip', 'with = spaces and ünicode'],
    });
  });

  test('what was pushed can be fetched whole', async () => {
    const { source } = space();
    const repository = await createRepository(space());
    const one = await source.commit('whole one');
    const two = await source.commit('whole two', one);
    await mustPush(space(), repository, { commands: [create(main, two)] });
    const pack = await reading(space(), repository, (session) => fetchPack(session, [two]));
    const listing = await source.gitWithInput(pack, 'index-pack', '--stdin', '--strict');
    assert.match(listing.toString(), /^pack\t[0-9a-f]{40}\n$/);
  });
}
