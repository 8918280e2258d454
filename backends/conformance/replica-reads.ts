import assert from 'node:assert/strict';
import { PassThrough, Readable } from 'node:stream';
import { test } from 'node:test';
import type { GitStream } from '../contract/backend.js';
import { allRefs, refsWithout } from '../contract/visible-refs.js';
import { PktReader, pktText } from '../../server/wire/pkt-line.js';
import { create, rejectsWith, remove, update } from './backend-harness.js';
import { outputOf, push, reading, type ReplicaSpace, signal } from './replica-harness.js';

/** Reads of one replica. */
export function defineReplicaReads(space: () => ReplicaSpace): void {
  test('a read keeps its generation while pushes go on', async () => {
    const { replica, source, log, repositoryId } = space();
    const one = await source.commit('kept one');
    const two = await source.commit('kept two', one);
    await push(space(), [create('refs/heads/kept', one)]);
    const { generation, digest } = log.committed;
    const read = await replica.read(repositoryId, generation);
    await push(space(), [update('refs/heads/kept', one, two)], [one]);
    assert.equal(read.snapshot.generation, generation);
    assert.equal(read.digest, digest);
    assert.equal(read.snapshot.find('refs/heads/kept')?.oid, one);
    const body = requestOf(['want ' + one, 'done']);
    const { output, exitCode } = await outputOf(await read.uploadPack(fetching(body)));
    assert.equal(exitCode, 0);
    assert.ok(output.includes('PACK'));
    read.release();
    read.release();
  });

  test('many refs, and what changes of them from one generation to the next', async () => {
    const { replica, source, log, repositoryId } = space();
    const one = await source.commit('many one');
    const tag = await source.tag(one, 'many');
    const names = Array.from({ length: 1200 }, (_, n) => `refs/many/${String(n).padStart(5, '0')}`);
    await push(space(), [...names.map((name) => create(name, one)), create('refs/tags/many', tag)]);
    const changes = [
      update(names[0] ?? '', one, tag),
      remove(names[7] ?? '', one),
      create('refs/many/00007b', one),
      create('refs/zzz', one),
      remove(names.at(-1) ?? '', one),
    ];
    const seen: string[] = [];
    for (const commands of [[], changes, [remove('refs/tags/many', tag)]]) {
      if (commands.length > 0) await push(space(), commands);
      const read = await replica.read(repositoryId, log.committed.generation);
      const { snapshot } = read;
      assert.equal(read.digest, log.committed.digest);
      for (const { name, oid } of snapshot.refs) assert.equal(snapshot.find(name)?.oid, oid);
      seen.push(`${snapshot.refs.length} ${snapshot.find('refs/tags/many')?.peeled}`);
      read.release();
    }
    const before = seen[0] ?? '';
    assert.equal(before.split(' ')[1], one);
    const count = Number(before.split(' ')[0]);
    assert.deepEqual(seen.slice(1), [`${count} ${one}`, `${count - 1} undefined`]);
    await reading(space(), async ({ snapshot }) => {
      assert.equal(snapshot.find(names[0] ?? '')?.peeled, one);
      assert.equal(snapshot.find(names[7] ?? ''), undefined);
      assert.equal(snapshot.find('refs/zzz')?.oid, one);
      const left = snapshot.refs.filter(({ name }) => name.startsWith('refs/many/'));
      await push(
        space(),
        left.map(({ name, oid }) => remove(name, oid)),
      );
    });
  });

  test('what may be wanted depends on what may be seen', async () => {
    const { source } = space();
    const open = await source.commit('open');
    const secret = await source.commit('secret');
    await push(space(), [create('refs/heads/open', open), create('refs/secret/x', secret)]);
    const hidden = refsWithout(['refs/secret']);
    const blob = await source.git('rev-parse', `${open}:file`);
    await reading(space(), async (read) => {
      assert.equal(await read.firstForbiddenWant([open, secret, blob], allRefs), undefined);
      assert.equal(await read.firstForbiddenWant([open, secret], hidden), secret);
      assert.equal(await read.firstForbiddenWant([], hidden), undefined);
      assert.deepEqual(await read.objectSizes([blob, 'cd'.repeat(20)]), [4, undefined]);
      const advertised = await outputOf(
        await read.uploadPack({
          ...stateful(Readable.from([Buffer.from('0000')])),
          visible: hidden,
        }),
      );
      assert.ok(advertised.output.includes('refs/heads/open'));
      assert.ok(!advertised.output.includes('refs/secret'));
    });
  });

  test('a stateful fetch talks both ways', async () => {
    const { source } = space();
    const one = await source.commit('talks one');
    const two = await source.commit('talks two', one);
    await push(space(), [create('refs/heads/talks', two)]);
    await reading(space(), async (read) => {
      const input = new PassThrough();
      const git = await read.uploadPack(stateful(input));
      const reader = new PktReader(git.stdout);
      for (let pkt = await reader.read(); pkt?.type === 'data';) pkt = await reader.read();
      input.write(
        `${pktText(`want ${two} ofs-delta multi_ack\n`)}0000${pktText(`have ${one}\n`)}0000`,
      );
      const ack = await reader.read();
      assert.ok(ack?.type === 'data' && ack.payload.toString().startsWith(`ACK ${one}`));
      input.end(pktText('done\n'));
      let rest = '';
      for await (const chunk of reader.rest()) rest += Buffer.from(chunk).toString('latin1');
      assert.ok(rest.includes('PACK'));
      assert.equal((await git.exited).exitCode, 0);
    });
  });

  test('who leaves ends git; so does an input that breaks', async () => {
    const { source } = space();
    await push(space(), [create('refs/heads/leaves', await source.commit('leaves'))]);
    await reading(space(), async (read) => {
      const leaving = new AbortController();
      const waiting = new PassThrough();
      const git = await read.uploadPack({ ...stateful(waiting), signal: leaving.signal });
      git.stdout.on('error', () => undefined).resume();
      leaving.abort();
      assert.notEqual((await git.exited).exitCode, 0);
      const killed = await read.uploadPack(stateful(new PassThrough()));
      killed.stdout.on('error', () => undefined).resume();
      killed.kill();
      killed.kill();
      assert.notEqual((await killed.exited).exitCode, 0);
      const breaking = new PassThrough();
      const broken = await read.uploadPack(stateful(breaking));
      broken.stdout.on('error', () => undefined).resume();
      breaking.destroy(new Error('the line broke'));
      assert.notEqual((await broken.exited).exitCode, 0);
      const late = { ...stateful(new PassThrough()), signal: AbortSignal.abort() };
      await rejectsOrFails(read.uploadPack(late));
    });
  });

  test('an archive, of what may be seen', async () => {
    const { source } = space();
    const tip = await source.commit('in the archive');
    await push(space(), [create('refs/heads/archived', tip)]);
    await reading(space(), async (read) => {
      const run = { input: archiveRequest(), visible: allRefs, signal: signal() };
      const { output, exitCode } = await outputOf(await read.uploadArchive(run));
      assert.equal(exitCode, 0);
      assert.ok(output.includes('in the archive'));
      const hidden = {
        ...run,
        input: archiveRequest(),
        visible: refsWithout(['refs/heads/archived']),
      };
      const refused = await outputOf(await read.uploadArchive(hidden));
      assert.ok(!refused.output.includes('in the archive'));
    });
  });

  test('a stored pack can be read from anywhere, in any portions', async () => {
    const { replica, source, repositoryId } = space();
    await push(space(), [create('refs/heads/whole', await source.commit('whole'))]);
    await reading(space(), async (read) => assert.equal(await read.wholePack(), undefined));
    const steps: string[] = [];
    const report = await replica.maintain(repositoryId, {
      signal: signal(),
      progress: ({ step }) => steps.push(step),
    });
    assert.ok(report.packsAfter < report.packsBefore);
    assert.ok(steps.length > 0);
    await reading(space(), async (read) => {
      assert.equal((await read.shape()).packCount, report.packsAfter);
      const pack = await read.wholePack();
      assert.ok(pack !== undefined);
      const all = Buffer.alloc(pack.sizeBytes);
      await pack.read([all.subarray(0, 5), all.subarray(5)], 0);
      assert.equal(all.toString('latin1', 0, 4), 'PACK');
      assert.equal(all.readUInt32BE(8), pack.objectCount);
      const part = Buffer.alloc(20);
      await pack.read([part], 7);
      await pack.read([part.subarray(0, 4)], 27);
      assert.deepEqual(part.subarray(0, 4), all.subarray(27, 31));
      await rejectsWith(pack.read([part], pack.sizeBytes - 3), 'data-corrupt');
      await pack.close();
      await pack.close();
    });
  });
}

const fetching = (input: Uint8Array) => ({
  protocol: 2 as const,
  input,
  stateless: true,
  visible: allRefs,
  config: {},
  signal: signal(),
});

const stateful = (input: Readable) => ({
  protocol: 0 as const,
  input,
  stateless: false,
  visible: allRefs,
  config: {},
  signal: signal(),
});

function archiveRequest(): Readable {
  const lines = [pktText('argument --format=tar\n'), pktText('argument archived\n'), '0000'];
  return Readable.from([Buffer.from(lines.join(''))]);
}

function requestOf(lines: readonly string[]): Buffer {
  const head = `${pktText('command=fetch\n')}0001${pktText('no-progress\n')}`;
  return Buffer.from(`${head}${lines.map((line) => pktText(`${line}\n`)).join('')}0000`);
}

/** A run that was given up before it began: refused, or ended at once. */
async function rejectsOrFails(run: Promise<GitStream>): Promise<void> {
  const git = await run.catch(() => undefined);
  if (git === undefined) return;
  git.stdout.on('error', () => undefined).resume();
  assert.notEqual((await git.exited).exitCode, 0);
}
