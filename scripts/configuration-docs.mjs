// Writes the table of settings into docs/configuration.md. Run after `npm run build`; a test compares the two.
import { readFileSync, writeFileSync } from 'node:fs';

const { configurationMarkdown } = await import('../dist/server/config-table.js');
const file = new URL('../docs/configuration.md', import.meta.url);
const text = readFileSync(file, 'utf8');
const table = /(<!-- settings -->\n)[^]*(\n<!-- end of settings -->)/;
writeFileSync(
  file,
  text.replace(table, (_, start, end) => start + configurationMarkdown() + end),
);
