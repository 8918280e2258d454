import { writeSync } from 'node:fs';
import { performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Clock } from '../../contract/environment.js';
import { silentLogger } from '../test-environment.js';
import { openEmbeddedCoordinator } from './embedded-coordinator.js';

/*
 * The process that the crash test kills. It runs four chains of transactions at once, each of which puts the same
 * number under two keys, and prints a line for each that was acknowledged, without buffering: `chain number revision`.
 */
const directory = process.argv[2];
if (directory === undefined) throw new Error('usage: crash-writer DIRECTORY');
const clock: Clock = {
  nowMs: () => Date.now(),
  monotonicMs: () => performance.now(),
  sleep: async (ms, signal) => {
    await sleep(ms, undefined, { ref: false, ...(signal === undefined ? {} : { signal }) }).catch(
      () => undefined,
    );
  },
};
const coordinator = await openEmbeddedCoordinator({ directory, clock, logger: silentLogger });
const lease = await coordinator.grantLease(10_000);

async function write(chain: number): Promise<never> {
  const last = await coordinator.get(`chain/${chain}/a`);
  for (let number = Number(Buffer.from(last?.value ?? [])) + 1; ; number += 1) {
    const value = Buffer.from(String(number));
    const { revision } = await coordinator.transaction({
      compares: [],
      success: [
        { type: 'put', key: `chain/${chain}/a`, value },
        { type: 'put', key: `filler/${number % 50}`, value: Buffer.alloc(3_000 * (number % 3)) },
        { type: 'put', key: `leased/${chain}`, value, lease: lease.id },
        { type: 'put', key: `chain/${chain}/b`, value },
      ],
      failure: [],
    });
    writeSync(1, `${chain} ${number} ${revision}\n`);
  }
}

await Promise.all([0, 1, 2, 3].map(write));
