import { setTimeout as sleep } from 'node:timers/promises';
import type { Command } from 'commander';
import { isJson, type Json } from '../api-client.js';
import { CliError, ConnectionLost } from '../cli-error.js';
import { contextOf, rows } from '../context.js';
import { parseDuration } from '../duration.js';
import { noneOf } from '../list.js';
import { plain, printable, table } from '../output.js';

interface AuditOptions {
  readonly repo?: string;
  readonly user?: string;
  readonly event?: string;
  readonly outcome?: string;
  readonly since?: string;
  readonly until?: string;
  readonly limit?: string;
  readonly follow?: true;
}

/** What the server answers at a time. */
const pageSize = 500;

export function addAuditCommand(program: Command): void {
  program
    .command('audit')
    .description('show who did what, and what was refused; newest first')
    .option('--repo <name>', 'of this repository')
    .option('--user <name>', 'by this user (or anonymous, unknown, system)')
    .option('--event <event>', 'authentication, access, limit, push or admin')
    .option('--outcome <outcome>', 'ok, refused or error')
    .option('--since <when>', 'not older than: 2h, 30d, or a time like 2026-11-21T08:00Z')
    .option('--until <when>', 'older than')
    .option('--limit <n>', 'at most so many (default: 100; before what comes with --follow: 10)')
    .option('--follow', 'go on with what happens, oldest first, until Ctrl-C')
    .action(async (options: AuditOptions, command: Command) => {
      if (options.follow === true) return follow(options, command);
      return list(options, command);
    });
}

async function list(options: AuditOptions, command: Command): Promise<void> {
  const { terminal, request } = contextOf(command);
  const limit = wholeNumber(options.limit ?? '100');
  const nowMs = Date.now();
  const filter = filterOf(options);
  const since = instant(options.since, nowMs);
  const until = instant(options.until, nowMs);
  if (since !== undefined) filter.set('since', since);
  if (until !== undefined) filter.set('until', until);
  let shown = 0;
  for (let next: unknown = ''; typeof next === 'string' && shown < limit;) {
    filter.set('limit', String(Math.min(pageSize, limit - shown)));
    if (next !== '') filter.set('after', next);
    const answer = await request('GET', `/audit?${filter.toString()}`);
    const events = rows(answer, 'events');
    // Each page is shown as it comes: a reader that has seen enough ends the reading.
    if (terminal.json) for (const event of events) terminal.print(`${JSON.stringify(event)}\n`);
    else terminal.print(table(columns, events));
    shown += events.length;
    next = answer['next'];
  }
  if (shown === 0 && !terminal.json) terminal.hint(noneOf('events'));
}

/** A server that restarts is back within a minute. */
const patienceMs = 60_000;
const retryAfterMs = 1_000;

/** Goes on where it was when the server restarts. */
async function follow(options: AuditOptions, command: Command): Promise<void> {
  if (options.since !== undefined || options.until !== undefined) {
    throw new CliError('--follow begins now: it takes no --since and no --until', { exitCode: 2 });
  }
  const { terminal, follow: read } = contextOf(command);
  const filter = filterOf(options);
  filter.set('last', String(wholeNumber(options.limit ?? '10')));
  let heardMs = -Infinity;
  const told = (line: Json): void => {
    heardMs = performance.now();
    const { event, position } = line;
    if (typeof position === 'string') {
      filter.delete('last');
      filter.set('from', position);
    }
    if (!isJson(event)) return;
    terminal.print(terminal.json ? `${JSON.stringify(event)}\n` : oneLine(event));
  };
  for (let lost = false; ;) {
    try {
      return await read(`/audit/follow?${filter.toString()}`, told);
    } catch (error) {
      const patient = performance.now() - heardMs < patienceMs;
      if (!(error instanceof ConnectionLost) || !patient) throw error;
      if (!lost) terminal.hint(`${error.message}; waiting for it`);
      lost = true;
      await sleep(retryAfterMs);
    }
  }
}

function filterOf(options: AuditOptions): URLSearchParams {
  const filter = new URLSearchParams();
  const add = (name: string, value: string | undefined): void => {
    if (value !== undefined) filter.set(name, value);
  };
  add('repository', options.repo?.replace(/\.git$/, ''));
  add('user', options.user);
  add('event', options.event);
  add('outcome', options.outcome);
  return filter;
}

/** Lines come one by one, so columns are as wide as is usual. */
function oneLine(event: Json): string {
  const widths = [19, 14, 7, 12, 15, 20, 0];
  const cells = columns.map(({ key, show }, index) =>
    printable((show ?? plain)(event[key])).padEnd(widths[index] ?? 0),
  );
  return `${cells.join('  ').trimEnd()}\n`;
}

const columns = [
  {
    title: 'TIME (UTC)',
    key: 'time',
    show: (value: unknown) => plain(value).slice(0, 19).replace('T', ' '),
  },
  { title: 'EVENT', key: 'event' },
  { title: 'OUTCOME', key: 'outcome' },
  { title: 'ACTOR', key: 'actor' },
  { title: 'FROM', key: 'remoteAddress' },
  { title: 'REPOSITORY', key: 'repository' },
  { title: 'DETAILS', key: 'details', show: shortDetails },
];

/** Enough for a line of a terminal; `--json` shows all. */
const maxDetailsLength = 160;

function shortDetails(value: unknown): string {
  if (typeof value !== 'object' || value === null) return '-';
  const text = Object.entries(value)
    .map(([key, part]) => `${key}=${plain(part)}`)
    .join(' ');
  return text.length > maxDetailsLength ? `${text.slice(0, maxDetailsLength)}...` : text;
}

/** `2h` before now, or a time. */
function instant(text: string | undefined, nowMs: number): string | undefined {
  if (text === undefined) return undefined;
  if (/^\d+[a-z]$/.test(text)) return new Date(nowMs - parseDuration(text) * 1000).toISOString();
  // A time without a zone is UTC, as everything that is shown.
  const withZone = /^\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?$/.test(text)
    ? `${text.replace(' ', 'T')}Z`
    : text;
  const atMs = Date.parse(withZone);
  if (Number.isNaN(atMs)) {
    throw new CliError(`"${text}" is no time: write it like 2h, 30d or 2026-11-21T08:00Z`, {
      exitCode: 2,
    });
  }
  return new Date(atMs).toISOString();
}

function wholeNumber(text: string): number {
  const number = Number(text);
  if (Number.isSafeInteger(number) && number > 0) return number;
  throw new CliError('--limit wants a whole number from 1 on', { exitCode: 2 });
}
