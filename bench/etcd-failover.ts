import { parseArgs } from 'node:util';
import type { Logger } from '../backends/contract/environment.js';
import { openEtcdCoordinator } from '../backends/coordination/etcd/etcd-coordinator.js';
import { EtcdCluster } from '../backends/coordination/etcd/testing/etcd-cluster.js';
import { realRandom, settingsFor } from '../backends/coordination/etcd/testing/etcd-fixture.js';
import { measureWriteGap, type WriteGap } from '../backends/coordination/etcd/testing/write-gap.js';

/*
 * How long writes and reads pause when the leader of etcd is killed (SIGKILL; three members on this machine, with
 * etcd's own timeouts: heartbeat 100 ms, election 1 s):
 *
 *     npm run --silent build && node dist/bench/etcd-failover.js [--kills 20] [--election-ms 1000] [--json]
 */

const quiet: Logger = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
  child: () => quiet,
};

const { values } = parseArgs({
  options: {
    kills: { type: 'string', default: '20' },
    'election-ms': { type: 'string', default: '1000' },
    json: { type: 'boolean', default: false },
  },
});
const kills = Number(values.kills);
if (!Number.isSafeInteger(kills) || kills < 1) throw new RangeError('--kills wants a number');

const electionMs = Number(values['election-ms']);
if (!(electionMs >= 100)) throw new RangeError('--election-ms wants 100 or more');

const heartbeatMs = electionMs / 10;
const cluster = await EtcdCluster.start({ members: 3, electionMs, heartbeatMs });
try {
  const settings = settingsFor(cluster);
  const coordinator = await openEtcdCoordinator({ settings, random: realRandom, logger: quiet });
  try {
    const gaps: WriteGap[] = [];
    while (gaps.length < kills) gaps.push(await measureWriteGap(cluster, coordinator));
    process.stdout.write(values.json ? `${JSON.stringify(gaps)}\n` : describe(gaps));
  } finally {
    await coordinator.close();
  }
} finally {
  await cluster.stop();
}

function describe(gaps: readonly WriteGap[]): string {
  const errors = new Map<string, number>();
  for (const gap of gaps) {
    for (const [code, count] of Object.entries(gap.errors)) {
      errors.set(code, (errors.get(code) ?? 0) + count);
    }
  }
  const seen = [...errors].map(([code, count]) => `${count} ${code}`).join(', ');
  return (
    `${gaps.length} kills of etcd's leader\n` +
    `  writes pause  ${spread(gaps.map(({ gapMs }) => gapMs))}\n` +
    `  reads pause   ${spread(gaps.map(({ readGapMs }) => readGapMs))}\n` +
    `  split votes   ${gaps.filter(({ elections }) => elections > 1).length}\n` +
    `  errors seen   ${seen === '' ? 'none' : seen}\n`
  );
}

function spread(values: readonly number[]): string {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (share: number): string =>
    `${Math.round(sorted[Math.floor(share * (sorted.length - 1))] ?? 0)} ms`;
  return `median ${at(0.5)}, longest ${at(1)}`;
}
