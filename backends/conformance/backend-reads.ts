import assert from 'node:assert/strict';
import { Readable } from 'node:stream';
import { test } from 'node:test';
import { allRefs, refsWithout } from '../contract/visible-refs.js';
import { PktReader, pktText } from '../../server/wire/pkt-line.js';
import {
  create,
  createRepository,
  drain,
  fetchPack,
  mustPush,
  never,
  reading,
  update,
  type BackendSpace,
} from './backend-harness.js';

const main = 'refs/heads/main';

/** Reads: pinned, and no further than what may be seen. */
export function defineBackendReads(space: () => BackendSpace): void {
  test('a read sees one state while pushes go on, and can fetch it', async () => {
    const { backend, source } = space();
    const repository = await createRepository(space());
    const one = await source.commit('pinned one');
    const other = await source.commit('pinned other');
    await mustPush(space(), repository, { commands: [create(main, one)] });
    const session = await backend.read(repository, never());
    await mustPush(space(), repository, { commands: [update(main, one, other)] });
    assert.equal(session.snapshot.find(main)?.oid, one);
    const pack = await fetchPack(session, [one]);
    assert.equal(pack.toString('latin1', 0, 4), 'PACK');
    session.release();
    session.release();
    await reading(space(), repository, ({ snapshot }) => {
      assert.equal(snapshot.find(main)?.oid, other);
    });
  });

  test('a fetch brings what is missing, and no more', async () => {
    const { source } = space();
    const repository = await createRepository(space());
    const one = await source.commit('increment one');
    const two = await source.commit('increment two', one);
    await mustPush(space(), repository, { commands: [create(main, two)] });
    const pack = await reading(space(), repository, (session) => fetchPack(session, [two], [one]));
    assert.equal(pack.readUInt32BE(8), 3, 'one commit, one tree, one blob');
  });

  test('commits and tags by id only where a visible ref reaches them; trees and blobs if stored', async () => {
    const { source } = space();
    const repository = await createRepository(space());
    const one = await source.commit('wanted one');
    const two = await source.commit('wanted two', one);
    const hidden = await source.commit('wanted hidden', one);
    const hiddenTag = await source.tag(one, 'hidden');
    const inner = await source.tag(one, 'inner');
    const outer = await source.tag(inner, 'outer');
    const absent = await source.commit('never pushed', one);
    await mustPush(space(), repository, {
      commands: [
        create(main, two),
        create('refs/tags/outer', outer),
        create('refs/hidden/x', hidden),
        create('refs/hidden/tag', hiddenTag),
      ],
    });
    const visible = refsWithout(['refs/hidden']);
    const tree = await source.git('rev-parse', `${one}^{tree}`);
    const blob = await source.git('rev-parse', `${one}:file`);
    const cases = [
      { desc: 'tip', oid: two, all: true, some: true },
      { desc: 'ancestor', oid: one, all: true, some: true },
      { desc: 'tag of a tag', oid: outer, all: true, some: true },
      { desc: 'the tag in it', oid: inner, all: true, some: true },
      { desc: 'tree', oid: tree, all: true, some: true },
      { desc: 'blob', oid: blob, all: true, some: true },
      { desc: 'hidden commit', oid: hidden, all: true, some: false },
      { desc: 'hidden tag', oid: hiddenTag, all: true, some: false },
      { desc: 'unknown', oid: absent, all: false, some: false },
      { desc: 'nothing', oid: 'ab'.repeat(20), all: false, some: false },
    ];
    await reading(space(), repository, async (session) => {
      for (const { desc, oid, all, some } of cases) {
        assert.equal(await session.firstForbiddenWant([oid], allRefs), all ? undefined : oid, desc);
        assert.equal(
          await session.firstForbiddenWant([oid], visible),
          some ? undefined : oid,
          desc,
        );
      }
      const wants = [two, blob, hidden, absent];
      assert.ok(
        [hidden, absent].includes((await session.firstForbiddenWant(wants, visible)) ?? ''),
      );
      assert.equal(await session.firstForbiddenWant([], visible), undefined);
    });
  });

  test('sizes of objects', async () => {
    const { source } = space();
    const repository = await createRepository(space());
    const one = await source.commit('twelve bytes');
    await mustPush(space(), repository, { commands: [create(main, one)] });
    const blob = await source.git('rev-parse', `${one}:file`);
    const commitBytes = Number(await source.git('cat-file', '-s', one));
    const sizes = await reading(space(), repository, (session) =>
      session.objectSizes([blob, 'cd'.repeat(20), one]),
    );
    assert.deepEqual(sizes, [12, undefined, commitBytes]);
  });

  test('an archive of a visible ref', async () => {
    const { source } = space();
    const repository = await createRepository(space());
    const one = await source.commit('archived content');
    await mustPush(space(), repository, {
      commands: [create(main, one), create('refs/hidden/x', one)],
    });
    const visible = refsWithout(['refs/hidden']);
    await reading(space(), repository, async (session) => {
      const archive = await session.uploadArchive({
        input: archiveRequest('main'),
        visible,
        signal: never(),
      });
      const parts: Buffer[] = [];
      for await (const chunk of archive.stdout) parts.push(Buffer.from(chunk));
      assert.equal((await archive.exited).exitCode, 0);
      assert.match(Buffer.concat(parts).toString('latin1'), /^0008ACK\n[^]*archived content/);
      const refused = await session.uploadArchive({
        input: archiveRequest('refs/hidden/x'),
        visible,
        signal: never(),
      });
      const reader = new PktReader(refused.stdout);
      const answer = await reader.read();
      await drain(reader);
      await refused.exited;
      assert.ok(
        answer === undefined || answer.type !== 'data' || !answer.payload.includes('archived'),
      );
    });
  });

  test('a client that leaves ends its git', async () => {
    const { backend, source } = space();
    const repository = await createRepository(space());
    const one = await source.commit('leaving');
    await mustPush(space(), repository, { commands: [create(main, one)] });
    const session = await backend.read(repository, never());
    const leaving = new AbortController();
    const waiting = new Readable({ read() {} });
    const stream = await session.uploadPack({
      protocol: 0,
      input: waiting,
      stateless: false,
      visible: allRefs,
      config: {},
      signal: leaving.signal,
    });
    stream.stdout.on('error', () => {});
    stream.stdout.resume();
    leaving.abort();
    assert.notEqual((await stream.exited).exitCode, 0);
    waiting.destroy();
    session.release();
  });
}

/** What a client of `git upload-archive` sends. */
function archiveRequest(ref: string): Readable {
  const lines = [pktText('argument --format=tar\n'), pktText(`argument ${ref}\n`), '0000'];
  return Readable.from([Buffer.from(lines.join(''))]);
}
