import type { Command } from 'commander';
import { CliError } from '../cli-error.js';
import { contextOf, rows } from '../context.js';
import { parseDuration } from '../duration.js';
import { plain, table } from '../output.js';

interface AuditOptions {
  readonly repo?: string;
  readonly user?: string;
  readonly event?: string;
  readonly outcome?: string;
  readonly since?: string;
  readonly until?: string;
  readonly limit: string;
}

/** What the server answers at a time. */
const pageSize = 500;

export function addAuditCommand(program: Command): void {
  program
    .command('audit')
    .description('show who did what, and what was refused; newest first')
    .option('--repo <name>', 'of this repository')
    .option('--user <name>', 'by this user (or anonymous, unknown, system)')
    .option('--event <event>', 'authentication, access, limit, push, admin, ...')
    .option('--outcome <outcome>', 'ok, refused or error')
    .option('--since <when>', 'not older than: 2h, 30d, or a time like 2026-11-21T08:00Z')
    .option('--until <when>', 'older than')
    .option('--limit <n>', 'at most so many', '100')
    .action(async (options: AuditOptions, command: Command) => {
      const { terminal, request } = contextOf(command);
      const limit = wholeNumber(options.limit);
      const nowMs = Date.now();
      const filter = new URLSearchParams();
      const add = (name: string, value: string | undefined): void => {
        if (value !== undefined) filter.set(name, value);
      };
      add('repository', options.repo?.replace(/\.git$/, ''));
      add('user', options.user);
      add('event', options.event);
      add('outcome', options.outcome);
      add('since', instant(options.since, nowMs));
      add('until', instant(options.until, nowMs));
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
    });
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
