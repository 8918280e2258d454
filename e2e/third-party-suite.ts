import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { createScene } from './harness.js';
import type { Scene, ServerProcess, SshKey } from './harness.js';

/** A Git implementation that is not git's own, signed in as `admin`. */
export interface ThirdPartyClient {
  /** Clones with a working tree (without, where the client has none) and all branches and tags. */
  clone(url: string, directory: string): Promise<void>;
  /** Fetches the branches and tags of `origin` into `refs/remotes/origin/` and `refs/tags/`. */
  fetch(directory: string): Promise<void>;
  /**
   * Pushes one refspec (`+SRC:DST`, or `:DST` to delete; full names) to `origin`. Resolves with undefined when the
   * server took it, else with why not.
   */
  push(directory: string, refspec: string): Promise<string | undefined>;
}

export interface ThirdPartyScene {
  readonly scene: Scene;
  readonly server: ServerProcess;
  readonly key: SshKey;
  /** A token for HTTP. */
  readonly token: string;
}

/** A client over one protocol. */
export interface Transport {
  /** `HTTP` or `SSH`, and what else makes it different. */
  readonly name: string;
  url(ground: ThirdPartyScene, repository: string): string;
  connect(ground: ThirdPartyScene): ThirdPartyClient;
  /** The same with credentials that are wrong. */
  intrude(ground: ThirdPartyScene): Promise<ThirdPartyClient>;
  /** Default true. */
  readonly clonesEmpty?: boolean;
}

/** What every client has to be able to do with the server, each result compared with real git's. */
export function defineThirdPartySuite(clientName: string, transports: readonly Transport[]): void {
  for (const transport of transports) {
    describe(`${clientName} over ${transport.name}`, () => defineTests(transport));
  }
}

function defineTests(transport: Transport): void {
  let ground: ThirdPartyScene;
  let client: ThirdPartyClient;
  before(async () => {
    const scene = await createScene();
    const server = await scene.startServer();
    const key = await scene.sshKey();
    await scene.admin(server, 'key', 'add', 'admin', key.publicKeyFile);
    const token = (await scene.admin(server, 'token', 'create', 'admin', '--name', 't')).trim();
    ground = { scene, server, key, token };
    client = transport.connect(ground);
  });
  after(() => ground.scene.close());

  let count = 0;
  /** A repository on the server with branches, tags, modes and a binary, and the source it was pushed from. */
  async function published(): Promise<{ name: string; source: string }> {
    const { scene, server } = ground;
    count += 1;
    const name = `team/app-${count}.git`;
    const source = await scene.makeRepository({
      commits: 20,
      files: { 'deep/er/file.txt': 'deep\n', 'noise.bin': Buffer.alloc(70_000, 'x\0\xffy') },
    });
    await scene.git(['tag', '-a', '-m', 'First', 'v1', 'main~5'], { cwd: source });
    await scene.git(['tag', 'light', 'main~3'], { cwd: source });
    await scene.git(['branch', 'feature/one', 'main~2'], { cwd: source });
    await scene.git(['push', '-q', '--all', server.httpUrl(name)], { cwd: source });
    await scene.git(['push', '-q', '--tags', server.httpUrl(name)], { cwd: source });
    return { name, source };
  }

  const refsOf = async (directory: string, prefix: string): Promise<string> =>
    ground.scene.git(['for-each-ref', '--format=%(objectname) %(refname:lstrip=2)', prefix], {
      cwd: directory,
    });
  const remoteRefs = (name: string): Promise<string> =>
    ground.scene.git(['ls-remote', ground.server.httpUrl(name)]);
  const isSound = (directory: string): Promise<string> =>
    ground.scene.git(['fsck', '--full', '--strict', '--no-dangling'], { cwd: directory });
  const cloned = async (name: string): Promise<string> => {
    count += 1;
    const directory = ground.scene.path('work', `theirs-${count}`);
    await client.clone(transport.url(ground, name), directory);
    return directory;
  };
  /** What real git gets from the server now, checked. */
  const gitsView = async (name: string): Promise<string> => {
    count += 1;
    const directory = ground.scene.path('work', `gits-${count}`);
    await ground.scene.git(['clone', '-q', '--mirror', ground.server.httpUrl(name), directory]);
    await isSound(directory);
    return directory;
  };
  /** A commit on top of what is checked out, on a branch of its own. */
  const commitOn = async (directory: string, branch: string, start: string): Promise<string> => {
    const { scene } = ground;
    await scene.git(['checkout', '-q', '-f', '-B', branch, start], { cwd: directory });
    return scene.commit(directory, `${branch}.txt`, `${branch} from ${start}\n`);
  };

  test('clones what git pushed', async () => {
    const { name, source } = await published();
    const directory = await cloned(name);
    await isSound(directory);
    assert.equal(await refsOf(directory, 'refs/tags'), await refsOf(source, 'refs/tags'));
    for (const branch of ['main', 'feature/one']) {
      assert.equal(
        await ground.scene.git(['rev-parse', `refs/remotes/origin/${branch}`], { cwd: directory }),
        await ground.scene.git(['rev-parse', branch], { cwd: source }),
      );
    }
    assert.equal(
      await ground.scene.git(['rev-parse', 'HEAD'], { cwd: directory }),
      await ground.scene.git(['rev-parse', 'main'], { cwd: source }),
    );
    assert.deepEqual(
      await readFile(path.join(directory, 'noise.bin')),
      await readFile(path.join(source, 'noise.bin')),
    );
  });

  test('fetches what git pushed since', async () => {
    const { scene, server } = ground;
    const { name, source } = await published();
    const directory = await cloned(name);
    const tip = await scene.commit(source, 'deep/er/file.txt', 'deeper\n');
    await scene.git(['tag', '-a', '-m', 'Second', 'v2'], { cwd: source });
    await scene.git(['push', '-q', server.httpUrl(name), 'main', 'v2', 'main~9:refs/heads/old'], {
      cwd: source,
    });
    await client.fetch(directory);
    await isSound(directory);
    const seen = await refsOf(directory, 'refs/remotes/origin');
    assert.match(seen, new RegExp(`^${tip} origin/main$`, 'm'));
    assert.match(seen, /^[0-9a-f]{40} origin\/old$/m);
    assert.equal(await refsOf(directory, 'refs/tags'), await refsOf(source, 'refs/tags'));
    // Nothing new: the second fetch has nothing to say.
    await client.fetch(directory);
    assert.equal(await refsOf(directory, 'refs/remotes/origin'), seen);
  });

  test('pushes a branch and a tag that git then clones', async () => {
    const { scene } = ground;
    const { name } = await published();
    const directory = await cloned(name);
    const tip = await commitOn(directory, 'topic', 'HEAD');
    await scene.git(['tag', '-a', '-m', 'Theirs', 'theirs'], { cwd: directory });
    const tag = (await scene.git(['rev-parse', 'theirs'], { cwd: directory })).trim();
    assert.equal(await client.push(directory, 'refs/heads/topic:refs/heads/topic'), undefined);
    assert.equal(await client.push(directory, 'refs/tags/theirs:refs/tags/theirs'), undefined);
    const mirror = await gitsView(name);
    assert.equal((await scene.git(['rev-parse', 'topic'], { cwd: mirror })).trim(), tip);
    assert.equal((await scene.git(['rev-parse', 'theirs'], { cwd: mirror })).trim(), tag);
    assert.equal((await scene.git(['rev-parse', 'theirs^{}'], { cwd: mirror })).trim(), tip);
  });

  test('moves a branch forward, and back by force', async () => {
    const { scene } = ground;
    const { name } = await published();
    const directory = await cloned(name);
    const forward = await commitOn(directory, 'main', 'HEAD');
    assert.equal(await client.push(directory, 'refs/heads/main:refs/heads/main'), undefined);
    assert.match(await remoteRefs(name), new RegExp(`^${forward}\trefs/heads/main$`, 'm'));
    const aside = await commitOn(directory, 'main', 'HEAD~3');
    assert.notEqual(await client.push(directory, 'refs/heads/main:refs/heads/main'), undefined);
    assert.match(await remoteRefs(name), new RegExp(`^${forward}\trefs/heads/main$`, 'm'));
    assert.equal(await client.push(directory, '+refs/heads/main:refs/heads/main'), undefined);
    assert.match(await remoteRefs(name), new RegExp(`^${aside}\trefs/heads/main$`, 'm'));
    await isSound(await gitsView(name));
    assert.equal((await scene.git(['rev-parse', 'main'], { cwd: directory })).trim(), aside);
  });

  test('deletes a branch and a tag', async () => {
    const { name } = await published();
    const directory = await cloned(name);
    assert.equal(await client.push(directory, ':refs/heads/feature/one'), undefined);
    assert.equal(await client.push(directory, ':refs/tags/v1'), undefined);
    const left = await remoteRefs(name);
    assert.doesNotMatch(left, /feature\/one|refs\/tags\/v1/);
    assert.match(left, /refs\/heads\/main[^]*refs\/tags\/light/);
  });

  test('is told why a ref is refused', async () => {
    const { name } = await published();
    const directory = await cloned(name);
    const before = await remoteRefs(name);
    const reason = await client.push(directory, ':refs/heads/main');
    assert.match(reason ?? '', /deletion of the current branch prohibited/);
    assert.equal(await remoteRefs(name), before);
  });

  if (transport.clonesEmpty !== false) {
    test('clones an empty repository', async () => {
      const { scene, server } = ground;
      await scene.admin(server, 'repo', 'create', 'team/empty');
      const directory = await cloned('team/empty');
      assert.equal(await refsOf(directory, 'refs/remotes/origin/m*'), '');
    });
  }

  test('makes a repository by its first push', async () => {
    const { scene } = ground;
    const source = await scene.makeRepository({ commits: 3 });
    const name = 'team/first.git';
    await scene.git(['remote', 'add', 'origin', transport.url(ground, name)], { cwd: source });
    assert.equal(await client.push(source, 'refs/heads/main:refs/heads/main'), undefined);
    assert.equal(
      await refsOf(await gitsView(name), 'refs/heads'),
      await refsOf(source, 'refs/heads'),
    );
  });

  test('is refused without the right credentials', async () => {
    const { name } = await published();
    const intruder = await transport.intrude(ground);
    const directory = ground.scene.path('work', `intruder-${count}`);
    await assert.rejects(
      intruder.clone(transport.url(ground, name), directory),
      /401|[Aa]uth|[Pp]ermission denied|UserCanceledError/,
    );
    // And whoever is right is served on.
    await cloned(name);
  });
}
