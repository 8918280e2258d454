import type { Json } from './api-client.js';

/**
 * One column of a table. `key` is the field; `show` makes text of its value (and of its row's others).
 */
export interface Column {
  readonly title: string;
  readonly key: string;
  readonly show?: (value: unknown, row: Json) => string;
}

/** Rows under titles, columns aligned, two spaces between them; nothing at all for no rows. */
export function table(columns: readonly Column[], rows: readonly Json[]): string {
  if (rows.length === 0) return '';
  const cells = [
    columns.map(({ title }) => title),
    ...rows.map((row) => columns.map(({ key, show }) => printable((show ?? plain)(row[key], row)))),
  ];
  const widths = columns.map((_, index) =>
    Math.max(...cells.map((line) => line[index]?.length ?? 0)),
  );
  return cells
    .map((line) =>
      line
        .map((cell, index) => cell.padEnd(widths[index] ?? 0))
        .join('  ')
        .trimEnd(),
    )
    .map((line) => `${line}\n`)
    .join('');
}

/** `name: value` lines, values aligned. */
export function facts(entries: readonly (readonly [string, unknown])[]): string {
  const width = Math.max(...entries.map(([name]) => name.length)) + 2;
  return entries
    .map(([name, value]) => `${`${name}:`.padEnd(width)}${printable(plain(value))}`.trimEnd())
    .map((line) => `${line}\n`)
    .join('');
}

/** Text of a JSON value, for people. */
export function plain(value: unknown): string {
  if (typeof value === 'string') return value;
  if (typeof value === 'boolean') return value ? 'yes' : 'no';
  return value === null || value === undefined ? '-' : JSON.stringify(value);
}

/** `2026-11-21T00:44:19.000Z` as `2026-11-21 00:44`, in UTC. */
export function time(value: unknown): string {
  return typeof value === 'string' ? value.slice(0, 16).replace('T', ' ') : '-';
}

/** Bytes with a binary unit. */
export function size(value: unknown): string {
  if (typeof value !== 'number') return '-';
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  const power = Math.min(units.length - 1, Math.floor(Math.log2(Math.max(1, value)) / 10));
  return `${(value / 1024 ** power).toFixed(power === 0 ? 0 : 1)} ${units[power]}`;
}

/** Milliseconds or, from a second on, seconds. */
export function duration(value: unknown): string {
  if (typeof value !== 'number') return '-';
  return value < 1000 ? `${Math.round(value)} ms` : `${(value / 1000).toFixed(1)} s`;
}

/** What others wrote (names, comments) must not steer the reader's terminal. */
export function printable(text: string): string {
  return text.replaceAll(/[\x00-\x1f\x7f-\x9f]/g, (character) => {
    return `\\x${character.charCodeAt(0).toString(16).padStart(2, '0')}`;
  });
}
