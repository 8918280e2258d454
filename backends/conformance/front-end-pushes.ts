import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import type { FrontEndClient } from './front-end-ground.js';

/** Pushes of every kind, and how they are refused. */
export function defineFrontEndPushes(client: FrontEndClient): void {
  test('a push makes the repository; more pushes move, force and delete its branches', async () => {
    const { name, source } = await client.published({ commits: 4 });
    const url = client.url(name);
    const first = await client.revision(source, 'main');
    assert.deepEqual(await client.serverRefs(name), { 'refs/heads/main': first });
    const second = await client.scene.commit(source, 'second.txt', 'second');
    await client.git(['push', '-q', url, 'main', 'main:topic'], { cwd: source });
    assert.deepEqual(await client.serverRefs(name), {
      'refs/heads/main': second,
      'refs/heads/topic': second,
    });
    assert.match(
      await client.refused(['push', url, 'main~2:topic'], { cwd: source }),
      /non-fast-forward|fetch first/,
    );
    await client.git(['push', '-q', url, '+main~2:topic'], { cwd: source });
    assert.equal(
      (await client.serverRefs(name))['refs/heads/topic'],
      await client.revision(source, 'main~2'),
    );
    await client.git(['push', '-q', url, ':topic'], { cwd: source });
    assert.deepEqual(await client.serverRefs(name), { 'refs/heads/main': second });
    assert.match(
      (await client.try(['push', url, 'main'], { cwd: source })).stderr,
      /Everything up-to-date/,
    );
  });

  test('deleting the current branch is refused in the words that git users know', async () => {
    const { name, source } = await client.published();
    const words = await client.refused(['push', client.url(name), ':main'], { cwd: source });
    assert.match(words, /\[remote rejected\] main \(deletion of the current branch prohibited\)/);
    assert.deepEqual(Object.keys(await client.serverRefs(name)), ['refs/heads/main']);
  });

  test('non-fast-forwards are refused where the repository says so', async () => {
    const { name, source } = await client.published({ commits: 3 });
    await client.admin('repo', 'set', name, 'receive.denyNonFastForwards=true');
    const before = await client.serverRefs(name);
    const words = await client.refused(['push', client.url(name), '+main~1:main'], { cwd: source });
    assert.match(words, /\[remote rejected\] main~1 -> main \(non-fast-forward\)/);
    assert.deepEqual(await client.serverRefs(name), before);
  });

  test('annotated and lightweight tags, and tags that follow', async () => {
    const { name, source } = await client.published({ commits: 3 });
    await client.git(['tag', '-a', '-m', 'One', 'v1', 'main~1'], { cwd: source });
    await client.git(['tag', 'light', 'main'], { cwd: source });
    await client.git(['push', '-q', client.url(name), '--tags'], { cwd: source });
    await client.scene.commit(source, 'four.txt', 'four');
    await client.git(['tag', '-a', '-m', 'Two', 'v2'], { cwd: source });
    await client.git(['push', '-q', '--follow-tags', client.url(name), 'main'], { cwd: source });
    const listing = await client.git(['ls-remote', '--tags', client.url(name)]);
    for (const line of [
      `${await client.revision(source, 'light')}\trefs/tags/light`,
      `${await client.revision(source, 'v1')}\trefs/tags/v1`,
      `${await client.revision(source, 'v1^{}')}\trefs/tags/v1^{}`,
      `${await client.revision(source, 'v2^{}')}\trefs/tags/v2^{}`,
    ]) {
      assert.ok(listing.split('\n').includes(line), line);
    }
  });

  test('of an atomic push of which one ref is refused, nothing happens', async () => {
    const { name, source } = await client.published({ commits: 2 });
    const before = await client.serverRefs(name);
    const specs = ['main:new', ':main'];
    await client.refused(['push', '--atomic', client.url(name), ...specs], { cwd: source });
    assert.deepEqual(await client.serverRefs(name), before);
    await client.refused(['push', client.url(name), ...specs], { cwd: source });
    assert.deepEqual(Object.keys(await client.serverRefs(name)), [
      'refs/heads/main',
      'refs/heads/new',
    ]);
    await client.git(['push', '-q', '--atomic', client.url(name), 'main:a', 'main:b', ':new'], {
      cwd: source,
    });
    assert.deepEqual(Object.keys(await client.serverRefs(name)), [
      'refs/heads/a',
      'refs/heads/b',
      'refs/heads/main',
    ]);
  });

  test('push options are taken, unless the repository does not want them', async () => {
    const { name, source } = await client.published();
    await client.git(['push', '-q', '-o', 'ci.skip', '-o', 'x=y z', client.url(name), 'main:a'], {
      cwd: source,
    });
    await client.admin('repo', 'set', name, 'receive.advertisePushOptions=false');
    const words = await client.refused(['push', '-o', 'ci.skip', client.url(name), 'main:b'], {
      cwd: source,
    });
    assert.match(words, /does not support push options/);
    await client.git(['push', '-q', client.url(name), 'main:c'], { cwd: source });
  });

  test('a stale lease is refused, a fresh one is not', async () => {
    const { name, source } = await client.published({ commits: 3 });
    const stale = await client.revision(source, 'main~1');
    const push = ['push', client.url(name), 'main~2:main'];
    const words = await client.refused([...push, `--force-with-lease=main:${stale}`], {
      cwd: source,
    });
    assert.match(words, /stale info/);
    const fresh = await client.revision(source, 'main');
    await client.git([...push, '-q', `--force-with-lease=main:${fresh}`], { cwd: source });
  });

  test('names that lie in each other’s way are refused', async () => {
    const { name, source } = await client.published();
    await client.git(['push', '-q', client.url(name), 'main:a/b'], { cwd: source });
    for (const taken of ['a', 'a/b/c']) {
      const words = await client.refused(['push', client.url(name), `main:refs/heads/${taken}`], {
        cwd: source,
      });
      assert.match(words, /\[remote rejected\]/);
    }
    assert.deepEqual(Object.keys(await client.serverRefs(name)), [
      'refs/heads/a/b',
      'refs/heads/main',
    ]);
  });

  test('clients that push to branches of their own at once all succeed', async () => {
    const { name, source } = await client.published({ commits: 3 });
    const clones = await Promise.all(Array.from({ length: 6 }, () => client.clone(name)));
    const tips = await Promise.all(
      clones.map(async (copy, index) => {
        const tip = await client.scene.commit(copy, `file-of-${index}.txt`, `content of ${index}`);
        await client.git(['push', '-q', 'origin', `HEAD:refs/heads/by/${index}`], { cwd: copy });
        return tip;
      }),
    );
    const refs = await client.serverRefs(name);
    assert.deepEqual(
      tips.map((_, index) => refs[`refs/heads/by/${index}`]),
      tips,
    );
    assert.equal(refs['refs/heads/main'], await client.revision(source, 'main'));
    await client.git(['fsck'], { cwd: await client.clone(name) });
  });

  test('a push of megabytes, which git sends in chunks over HTTP', async () => {
    const { name, source } = await client.published({
      files: { 'noise.bin': randomBytes(3_000_000) },
    });
    const next = await client.scene.commit(
      source,
      'more.txt',
      randomBytes(1_000_000).toString('base64'),
    );
    await client.git(['-c', 'http.postBuffer=65536', 'push', '-q', client.url(name), 'main'], {
      cwd: source,
    });
    const copy = await client.clone(name);
    assert.equal(await client.revision(copy, 'HEAD'), next);
    await client.git(['fsck'], { cwd: copy });
  });

  test('a push from a shallow clone', async () => {
    const { name } = await client.published({ commits: 8 });
    const copy = await client.clone(name, '--depth=2');
    const next = await client.scene.commit(copy, 'shallow.txt', 'shallow');
    await client.git(['push', '-q', 'origin', 'main'], { cwd: copy });
    assert.deepEqual(await client.serverRefs(name), { 'refs/heads/main': next });
    const whole = await client.clone(name);
    assert.equal(await client.commitCount(whole), 9);
    await client.git(['fsck'], { cwd: whole });
  });

  test('a mirror push makes the server the same, and removes what is gone', async () => {
    const { name, source } = await client.published({ commits: 3 });
    await client.git(['push', '-q', client.url(name), 'main:goes/away'], { cwd: source });
    const mirror = await client.scene.makeRepository({ commits: 2 });
    const tip = await client.revision(mirror, 'main');
    const lines = Array.from({ length: 300 }, (_, index) => `create refs/notes/n${index} ${tip}\n`);
    await client.git(['update-ref', '--stdin'], { cwd: mirror, stdin: lines.join('') });
    await client.git(['push', '-q', '--mirror', client.url(name)], { cwd: mirror });
    const refs = await client.serverRefs(name);
    assert.equal(Object.keys(refs).length, 301);
    assert.ok(Object.values(refs).every((oid) => oid === tip));
  });

  test('objects that fsck complains of are refused, and the client is told', async () => {
    const { name, source } = await client.published();
    const text = `tree ${await client.revision(source, 'main^{tree}')}\nauthor A <a> 1 +0000\ncommitter <a> 1 +0000\n\nx\n`;
    const odd = await client.git(['hash-object', '-w', '-t', 'commit', '--literally', '--stdin'], {
      cwd: source,
      stdin: text,
    });
    const words = await client.refused(['push', client.url(name), `${odd}:refs/heads/odd`], {
      cwd: source,
    });
    assert.match(words, /missingNameBeforeEmail|missing.*space before email|index-pack|unpack/i);
    assert.deepEqual(Object.keys(await client.serverRefs(name)), ['refs/heads/main']);
  });
}
