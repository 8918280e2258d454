import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { constants } from 'node:fs';
import { mkdir, mkdtemp, open, rename, rm, rmdir, statfs, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { promisify } from 'node:util';
import { Seeded, seedFrom } from '../checker/seeded.js';
import { waitFor } from '../wait.js';
import { createClusterScene, type ClusterScene } from './cluster-scene.js';
import { PushLoad } from './push-load.js';

const run = promisify(execFile);
/** A disk with less than 64 MiB left is a full one to the node. */
const sizeMebibytes = 128;
const small = 'storage-3';

describe('a storage node whose disk is full, while clients push', () => {
  const random = new Seeded(seedFrom('FAULT_SEED'));
  let disk = '';
  let mounted = false;
  let ground: ClusterScene | undefined;
  let load: PushLoad | undefined;

  before(async () => {
    assert.equal(process.getuid?.(), 0, 'this mounts a file system: run it as root');
    disk = await mkdtemp(path.join(tmpdir(), 'disk-'));
    await run('mount', ['-t', 'tmpfs', '-o', `size=${sizeMebibytes}m`, 'quorate-test', disk]);
    mounted = true;
    const dataDirectory = path.join(disk, 'data');
    await mkdir(dataDirectory);
    ground = await createClusterScene({
      dataDirectoryOf: (member) => (member === small ? dataDirectory : undefined),
    });
    load = await PushLoad.start(ground, random);
  });
  after(async () => {
    await rm(path.join(disk, 'ballast'), { force: true });
    await load?.close();
    try {
      await ground?.close();
    } finally {
      if (mounted) await run('umount', ['--lazy', disk]);
      await rmdir(disk);
    }
  });

  function parts(): {
    readonly ground: ClusterScene;
    readonly cluster: ClusterScene['cluster'];
    readonly pushing: PushLoad;
  } {
    if (ground === undefined || load === undefined) throw new Error('the cluster is not there');
    return { ground, cluster: ground.cluster, pushing: load };
  }

  async function readiness(): Promise<{ readonly status: number; readonly text: string }> {
    const { cluster } = parts();
    const answer = await fetch(`${cluster.storageNode(2).fact('opsUrl')}/readyz`);
    return { status: answer.status, text: await answer.text() };
  }

  /** What `quorate status` says of the node, at a front-end. */
  async function problem(): Promise<string | undefined> {
    const { ground: scene } = parts();
    const text = await scene.admin(0, 'status');
    return new RegExp(`^problem of ${small}: +(.+)$`, 'm').exec(text)?.[1];
  }

  async function fill(): Promise<void> {
    const { bavail, bsize } = await statfs(disk);
    const ballast = Buffer.alloc(bavail * bsize);
    await writeFile(path.join(disk, 'ballast'), ballast).catch((error: unknown) => {
      // Pushes took some of it meanwhile: it is full all the same.
      if (!(error instanceof Error && 'code' in error && error.code === 'ENOSPC')) throw error;
    });
  }

  test('pushes go on with the others, the node says so, and takes part again when there is room', async () => {
    const { cluster, pushing } = parts();
    await pushing.survive('a full disk', async () => {
      await waitFor('the node to be ready', async () => (await readiness()).status === 200);
      await fill();
      await pushing.acknowledged(20, 'while a disk is full');
      const { text } = await waitFor('the node to say so', async () => {
        const told = await readiness();
        return told.status === 503 ? told : undefined;
      });
      assert.match(text, /"storage"/);
      // Also one that starts then neither loses nor invents anything.
      await cluster.storageNode(2).kill();
      await pushing.acknowledged(5, 'without it');
      await rm(path.join(disk, 'ballast'));
      await cluster.storageNode(2).start().ready();
    });
    await pushing.converge();
    await waitFor('the node to be ready', async () => (await readiness()).status === 200);
  });

  test('again, and without a restart', async () => {
    const { pushing } = parts();
    await pushing.survive('a full disk', async () => {
      await fill();
      await pushing.acknowledged(20, 'while a disk is full');
      assert.match(
        await waitFor('the status to tell', () => problem()),
        /^the disk of \S+data is full: less than 64 MiB are left; make room on it, /,
      );
      await rm(path.join(disk, 'ballast'));
    });
    await pushing.converge();
    await pushing.checkDisks();
    await waitFor('the status to be well', async () => (await problem()) === undefined);
    await waitFor('the node to be ready', async () => (await readiness()).status === 200);
  });

  test('a disk that hangs is told of, until it answers', async () => {
    // Who opens a pipe to write waits in the kernel, as at a disk that hangs, until somebody reads.
    const pipe = path.join(disk, 'pipe');
    const probe = path.join(disk, 'data', 'disk-probe');
    await run('mkfifo', [pipe]);
    await rename(pipe, probe);
    try {
      assert.match(
        await waitFor('the status to tell', () => problem()),
        /^the disk of \S+data hangs: nothing that was asked of it has come back for 10 s; /,
      );
      const told = await readiness();
      assert.equal(told.status, 503);
      assert.match(told.text, /"storage":"the disk of \S+ hangs/);
    } finally {
      const reader = await open(probe, constants.O_RDONLY | constants.O_NONBLOCK);
      await rm(probe);
      await reader.close();
    }
    await waitFor('the status to be well', async () => (await problem()) === undefined);
    await waitFor('the node to be ready', async () => (await readiness()).status === 200);
  });
});
