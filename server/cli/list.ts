import type { Command } from 'commander';
import type { Json } from './api-client.js';
import { allRows, contextOf } from './context.js';
import { type Column, table } from './output.js';

export interface List {
  /** Below `/api/v1`; may have a query. */
  readonly path: string;
  /** Name of the list in the answer. */
  readonly rows: string;
  readonly columns: readonly Column[];
  /** Whether a row is shown; default all are. */
  readonly shows?: (row: Json) => boolean;
}

/** What most `list` commands do: all pages of a list, as a table or as JSON. Resolves with what was shown. */
export async function printList(
  command: Command,
  { path, rows, columns, shows = () => true }: List,
): Promise<readonly Json[]> {
  const { terminal, request } = contextOf(command);
  const found = (await allRows(request, path, rows)).filter(shows);
  if (terminal.json) terminal.printJson(found);
  else if (found.length > 0) terminal.print(table(columns, found));
  else terminal.hint(noneOf(rows));
  return found;
}

/** Said instead of a table that would be empty, on stderr. `rows`: name of the list in the answer. */
export function noneOf(rows: string): string {
  return `there are no ${rows.replaceAll(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`)}`;
}

/** `path`, for the entries of one user if one is given. */
export function ofUser(path: string, user: string | undefined): string {
  return user === undefined ? path : `${path}?user=${encodeURIComponent(user)}`;
}
