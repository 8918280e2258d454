import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { open, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { promisify } from 'node:util';
import { until } from '../contract/testing/until.js';
import { silentLogger } from '../coordination/test-environment.js';
import { DiskWatch } from './disk-watch.js';
import { silentMeter, systemClock } from './testing/local-fixture.js';

/** A clock that goes ten seconds at every wait, without waiting for long, while it is to. */
function hurried(hurries: () => boolean): typeof systemClock {
  let aheadMs = 0;
  return {
    ...systemClock,
    monotonicMs: () => systemClock.monotonicMs() + aheadMs,
    sleep: async (ms, signal) => {
      if (!hurries()) return systemClock.sleep(ms, signal);
      await systemClock.sleep(50, signal);
      if (signal?.aborted !== true) aheadMs += 10_000;
    },
  };
}

async function ground(t: TestContext): Promise<{
  readonly directory: string;
  readonly gauges: Map<string, () => number>;
  hurries: boolean;
  readonly watch: (options?: Partial<ConstructorParameters<typeof DiskWatch>[0]>) => DiskWatch;
}> {
  const directory = await mkdtemp(join(tmpdir(), 'quorate-disk-'));
  t.after(() => rm(directory, { recursive: true }));
  const gauges = new Map<string, () => number>();
  const scene = {
    hurries: true,
    directory,
    gauges,
    watch: (options: Partial<ConstructorParameters<typeof DiskWatch>[0]> = {}): DiskWatch =>
      new DiskWatch({
        directory,
        writes: true,
        clock: hurried(() => scene.hurries),
        logger: silentLogger,
        meter: {
          ...silentMeter,
          gauge: (_name, { kind = '' }, read) => {
            gauges.set(kind, read);
          },
        },
        ...options,
      }),
  };
  return scene;
}

test('a disk that hangs is found out, by one look however many ask, and so is that it is well again', async (t) => {
  const scene = await ground(t);
  const { directory, gauges, watch } = scene;
  // Who opens it waits, in the kernel, for somebody to read.
  const probe = join(directory, 'disk-probe');
  await promisify(execFile)('mkfifo', [probe]);
  const disk = watch();
  const found = await Promise.all([disk.look(), disk.look(), disk.look()]);
  const reader = await open(probe, 'r');
  try {
    for (const finding of found) {
      assert.equal(finding?.hangs, true);
      assert.match(finding.problem, /^the disk of \S+ hangs: .* 10 s; see the kernel's log/);
      assert.ok(finding.problem.includes(directory));
    }
    assert.deepEqual([gauges.get('hangs')?.(), gauges.get('takes-nothing')?.()], [1, 0]);
    assert.ok((disk.space?.capacityBytes ?? 0) > 0, 'it says how large it is all the same');
    await rm(probe);
  } finally {
    await reader.close();
  }
  // The look that hung comes back, and finds that a pipe is not what can be written to.
  await until('the look to come back', () => disk.finding?.hangs !== true);
  assert.deepEqual([gauges.get('hangs')?.(), gauges.get('takes-nothing')?.()], [0, 1]);
  scene.hurries = false;
  assert.equal(await disk.look(), undefined);
  assert.deepEqual([gauges.get('hangs')?.(), gauges.get('takes-nothing')?.()], [0, 0]);
  assert.ok((disk.space?.capacityBytes ?? 0) > 0);
});

test('nothing is written where it is not to be', async (t) => {
  const scene = await ground(t);
  const { directory, watch } = scene;
  scene.hurries = false;
  await promisify(execFile)('mkfifo', [join(directory, 'disk-probe')]);
  assert.equal(await watch({ writes: false }).look(), undefined);
});

test('who keeps looking logs what changes, and stops though the disk hangs', async (t) => {
  const { directory, watch } = await ground(t);
  const probe = join(directory, 'disk-probe');
  await promisify(execFile)('mkfifo', [probe]);
  const stopping = new AbortController();
  const logged: string[] = [];
  const heard = new Promise<void>((resolve) => {
    const logger = {
      ...silentLogger,
      error: (_context: object, message: string) => {
        logged.push(message);
        resolve();
      },
    };
    const disk = watch({ logger });
    void disk.keepLooking(stopping.signal).then(() => logged.push('stopped'));
  });
  await heard;
  stopping.abort();
  await until('it to stop', () => logged.length >= 2);
  assert.match(logged[0] ?? '', /hangs/);
  assert.equal(logged[1], 'stopped');
  const reader = await open(probe, 'r');
  await reader.close();
});
