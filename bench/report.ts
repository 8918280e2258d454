import type { CaseResult, Figures, PeerResult, Ratios } from './statistics.js';
import { nginxName } from './statistics.js';

/** The bar of each case: Quorate over HTTP takes at most this much of what nginx takes. */
const bar = 1.1;
/** On a busy machine a difference up to this is none. */
const tie = 1.2;
/** One-branch ls-refs requests a second: at least this many times those of nginx. */
const lsRefsBar = 10;

const header = [
  'case',
  'server',
  'wall',
  'x nginx',
  'x OpenSSH',
  'CPU',
  'x nginx',
  'x OpenSSH',
  'until idle',
  'x nginx',
];

/** All cases in one table, and what is to be known to read it. */
export function formatReport(results: readonly CaseResult[]): string {
  const rows: (readonly string[])[] = [header];
  for (const result of results) {
    result.peers.forEach((peer, index) => {
      rows.push([index === 0 ? result.title : '', ...cells(peer)]);
    });
    rows.push([]);
  }
  return [formatRows(rows), ...notes(results), ...footnotes, ...verdict(results)].join('\n');
}

function cells({ peer, medians, toNginx = {}, toOpenSsh = {} }: PeerResult): readonly string[] {
  if (medians === undefined) return [peer, '-'];
  const pair = (key: keyof Figures): readonly string[] => [
    duration(medians[key]),
    multiple(toNginx, key),
  ];
  const [wall, wallRatio] = pair('wallMs');
  const [cpu, cpuRatio] = pair('cpuMs');
  return [
    peer,
    wall ?? '',
    wallRatio ?? '',
    multiple(toOpenSsh, 'wallMs'),
    cpu ?? '',
    cpuRatio ?? '',
    multiple(toOpenSsh, 'cpuMs'),
    ...pair('cpuUntilIdleMs'),
  ];
}

function multiple(ratios: Ratios, key: keyof Figures): string {
  const value = ratios[key];
  return value === undefined ? '' : value.toFixed(2);
}

/** Three digits or so: `1.23 ms`, `45.6 ms`, `7.89 s`. */
export function duration(ms: number | undefined): string {
  if (ms === undefined) return '';
  if (ms >= 1000) return `${(ms / 1000).toFixed(2)} s`;
  if (ms >= 100) return `${ms.toFixed(0)} ms`;
  if (ms >= 1) return `${ms.toFixed(1)} ms`;
  return `${ms.toFixed(3)} ms`;
}

/** Columns as wide as their widest cell; the first two to the left, figures to the right. */
function formatRows(rows: readonly (readonly string[])[]): string {
  const widths = header.map((_, column) =>
    Math.max(...rows.map((row) => row[column]?.length ?? 0)),
  );
  const line = (row: readonly string[]): string =>
    widths
      .map((width, column) => {
        const cell = row[column] ?? '';
        return column < 2 ? cell.padEnd(width) : cell.padStart(width);
      })
      .join('  ')
      .trimEnd();
  const [first = [], ...rest] = rows;
  return [line(first), '-'.repeat(line(first).length), ...rest.map(line)].join('\n');
}

function notes(results: readonly CaseResult[]): readonly string[] {
  const repositories = results.map(({ title, repository }) => `  ${title}: ${repository}`);
  const missing = results.flatMap(({ title, peers }) =>
    peers.flatMap(({ peer, note }) =>
      note === undefined ? [] : [`  ${title}, ${peer}: ${firstLine(note)}`],
    ),
  );
  return [
    'Repositories:',
    ...repositories,
    ...(missing.length === 0 ? [] : ['Not measured, or not to the end:', ...missing]),
  ];
}

function firstLine(text: string): string {
  return (text.split('\n')[0] ?? '').slice(0, 200);
}

const footnotes = [
  '',
  'Medians per operation, servers measured in turn; "x nginx" and "x OpenSSH": as a multiple of theirs, less is better.',
  'Differences below 20 % are ties on a machine that does other things as well.',
  'CPU: user and system time of the server and its children until the client is done; until idle: with the work that',
  'a push leaves in the background (maintenance). Work that a server detaches from its process tree is not seen.',
  'Quorate syncs all that a push wrote (pack, refs, its log) to the disk before it reports success. The others run git',
  'as it comes: it syncs packs, but neither loose objects (a push of fewer than 100) nor refs. "--peers nginx-fsync"',
  'measures an nginx whose git syncs those too. Of the servers of HTTP, Quorate and nginx ask who pushes.',
];

function judged(ratio: number | undefined): string {
  if (ratio === undefined) return 'unknown';
  return `${ratio.toFixed(2)} ${ratio <= bar ? 'met' : ratio <= tie ? 'a tie' : 'MISSED'}`;
}

function verdict(results: readonly CaseResult[]): readonly string[] {
  const lines: string[] = [];
  for (const { key, title, peers } of results) {
    const nginx = peers.find(({ peer }) => peer === nginxName)?.medians;
    const quorate = peers.find(({ peer }) => peer === 'Quorate');
    const own = quorate?.medians;
    if (own === undefined || nginx === undefined) continue;
    if (key === 'ls-refs' || key === 'ls-refs-all') {
      const [mine, theirs] = [1000 / own.wallMs, 1000 / nginx.wallMs];
      const met = mine >= lsRefsBar * theirs ? 'met' : 'MISSED';
      const judgement = key === 'ls-refs' ? ` (at least ${lsRefsBar}x: ${met})` : '';
      const factor = (mine / theirs).toFixed(1);
      lines.push(
        `  ${title}: ${mine.toFixed(0)} requests/s, ${theirs.toFixed(0)} with nginx: ${factor}x${judgement}`,
      );
    }
    const { wallMs, cpuMs } = quorate?.toNginx ?? {};
    lines.push(`  ${title}: wall ${judged(wallMs)}, CPU ${judged(cpuMs)}`);
  }
  return lines.length === 0
    ? []
    : ['', `Quorate over HTTP as a multiple of nginx, at most ${bar}:`, ...lines];
}
