import assert from 'node:assert/strict';
import { test } from 'node:test';
import { duration, formatReport } from './report.js';
import { compare, median } from './statistics.js';
import type { Measured, Sample } from './measure.js';
import type { Peer } from './peers/peer.js';

function peer(name: string, transport: Peer['transport']): Peer {
  return {
    name,
    transport,
    pids: [],
    losesCpuTime: false,
    env: {},
    v2Http: false,
    quietMs: 0,
    url: () => '',
    load: () => Promise.resolve(),
    create: () => Promise.resolve(),
    remove: () => Promise.resolve(),
    stop: () => Promise.resolve(),
  };
}

function samples(...figures: readonly (readonly [wallMs: number, cpuMs: number])[]): Sample[] {
  return figures.map(([wallMs, cpuMs], round) => ({
    round,
    operations: 1,
    wallMs,
    cpuMs,
    memoryBytes: 0,
  }));
}

const measured: readonly Measured[] = [
  { peer: peer('Quorate', 'http'), samples: samples([30, 6], [10, 2], [20, 4]) },
  { peer: peer('nginx + http-backend', 'http'), samples: samples([10, 8], [10, 8], [900, 8]) },
  { peer: peer('Quorate SSH', 'ssh'), samples: samples([40, 8]) },
  { peer: peer('OpenSSH', 'ssh'), samples: samples([80, 4]) },
  { peer: peer('node-git-server', 'http'), samples: [], failure: 'git clone: it hung\nmore' },
];

test('the median of an even number of values is the mean of the two in the middle', () => {
  assert.equal(median([4, 1, 3, 2]), 2.5);
  assert.equal(median([9, 1, 2]), 2);
  assert.throws(() => median([]), /median of nothing/);
});

test('peers are compared by their medians, SSH with OpenSSH as well', () => {
  const [quorate, nginx, ssh, openSsh, absent] = compare(measured);
  assert.deepEqual(quorate?.medians, { wallMs: 20, cpuMs: 4 });
  assert.deepEqual(quorate?.toNginx, { wallMs: 2, cpuMs: 0.5 });
  assert.equal(quorate?.toOpenSsh, undefined);
  assert.deepEqual(nginx?.toNginx, { wallMs: 1, cpuMs: 1 });
  assert.deepEqual(ssh?.toOpenSsh, { wallMs: 0.5, cpuMs: 2 });
  assert.deepEqual(openSsh?.toOpenSsh, { wallMs: 1, cpuMs: 1 });
  assert.equal(absent?.medians, undefined);
  assert.match(absent?.note ?? '', /it hung/);
});

test('the report has a line for each peer, what is missing, and the verdict', () => {
  const result = { key: 'x', title: 'some case', repository: '1 MiB', peers: compare(measured) };
  const report = formatReport([result]);
  assert.match(report, /^some case +Quorate +20\.0 ms +2\.00 +4\.0 ms +0\.50$/m);
  assert.match(report, /^ +node-git-server +-$/m);
  assert.match(report, /^ +some case, node-git-server: git clone: it hung$/m);
  assert.match(report, /some case: wall 2\.00 MISSED, CPU 0\.50 met/);
});

function lsRefsReport(wallMs: number): string {
  const [first, second] = measured;
  assert.ok(first !== undefined && second !== undefined);
  const peers = compare([{ ...first, samples: samples([wallMs, 1]) }, second]);
  return formatReport([{ key: 'ls-refs', title: 'ls-refs', repository: '', peers }]);
}

test('requests a second are judged by their own bar', () => {
  const nginx = '100 with nginx';
  assert.match(lsRefsReport(1), new RegExp(`1000 requests/s, ${nginx}: 10\\.0x \\(.*: met\\)`));
  assert.match(lsRefsReport(2), new RegExp(`500 requests/s, ${nginx}: 5\\.0x \\(.*: MISSED\\)`));
});

test('durations have about three digits', () => {
  assert.deepEqual(
    [0.1234, 1.26, 123.4, 1234].map((ms) => duration(ms)),
    ['0.123 ms', '1.3 ms', '123 ms', '1.23 s'],
  );
});
