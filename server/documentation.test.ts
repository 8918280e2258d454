// The documentation, held against what there is: a name in it that nothing bears today is a defect like another.
import assert from 'node:assert/strict';
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { Command } from 'commander';
import { createProgram } from './cli/program.js';

const root = fileURLToPath(new URL('../..', import.meta.url));
const read = (file: string): string => readFileSync(path.join(root, file), 'utf8');

/** Every file of the project below `folder` whose name fits. */
function filesBelow(folder: string, fits: (name: string) => boolean): string[] {
  return readdirSync(path.join(root, folder), { recursive: true, encoding: 'utf8' })
    .filter((name) => fits(name))
    .map((name) => path.join(folder, name));
}

const pages = [
  'README.md',
  'bench/README.md',
  ...filesBelow('docs', (name) => name.endsWith('.md')),
  ...['server', 'hooks', 'backends', 'e2e', 'bench'].flatMap((folder) =>
    filesBelow(folder, (name) => name.endsWith('DESIGN.md')),
  ),
];

describe('the invariants of docs/architecture.md', () => {
  /** Tests, the suites that they run, and the mutants: by their names without folder and `.test.ts`. */
  const tests = new Map<string, string[]>();
  const isTest = /(\.test|-suite|conformance\/\w+-\w+|simulation\/[\w-]*mutants)\.ts$/;
  for (const folder of ['server', 'hooks', 'backends', 'e2e']) {
    for (const file of filesBelow(folder, (name) => isTest.test(name))) {
      const name = path.basename(file).replace(/(\.test)?\.ts$/, '');
      tests.set(name, [...(tests.get(name) ?? []), file]);
    }
  }

  tests.set(
    'mutant',
    ['mutants', 'membership-mutants', 'unlocked-mutants'].flatMap((name) => tests.get(name) ?? []),
  );

  const section = /### Invariants[^\n]*\n(.*?)\n## /s.exec(read('docs/architecture.md'))?.[1] ?? '';
  const table = /\n\|---\|---\|\n((?:\|.*\n)+)/.exec(section)?.[1] ?? '';
  const rows = table
    .trim()
    .split('\n')
    .map((line) => line.split(' | ').map((cell) => cell.replaceAll(/^\| | \|$/g, '')));

  test('are one table', () => {
    assert.ok(rows.length > 40, `${rows.length} rows`);
    assert.equal((section.match(/^\|/gm) ?? []).length, rows.length + 2);
    for (const row of rows) assert.equal(row.length, 2, row.join(' | '));
  });

  for (const [invariant = '', asserted = ''] of rows) {
    test(`${invariant}: its tests exist`, () => {
      for (const part of asserted.match(/(?:"[^"]*"|[^";])+/g) ?? []) {
        const words = part.replaceAll(/"[^"]*"/g, '').match(/[\w./-]+/g) ?? [];
        const named = words.flatMap((word) =>
          word.includes('/') && existsSync(path.join(root, word))
            ? [word]
            : (tests.get(path.basename(word)) ?? []),
        );
        assert.ok(named.length > 0, `no file of tests is named in: ${part}`);
        const sources = named.map((file) => (file.endsWith('.ts') ? read(file) : ''));
        for (const [, title = ''] of part.matchAll(/"([^"]*)"/g)) {
          const begin = title.replace(/ ?….*$/, '');
          // In the middle of a string, too.
          const phrase = new RegExp(`['"\`].*${begin.replaceAll(/[^\w ]/g, '\\$&')}`);
          const has = sources.some((source) => phrase.test(source));
          assert.ok(has, `no test "${title}" in ${named.join(', ')}`);
        }
      }
    });
  }
});

/** `['repo', 'create']` and its like: commands that do something. */
function leaves(command: Command, before: readonly string[] = []): [string[], Command][] {
  return command.commands.flatMap((one) => {
    const names = [...before, one.name()];
    return one.commands.length === 0 ? [[names, one]] : leaves(one, names);
  });
}

/** A line like `node drain|undrain NODE`, for a command. */
function isFor(words: readonly string[], names: readonly string[]): boolean {
  return names.every((name, index) => words[index]?.split('|').includes(name) === true);
}

const program = await createProgram({
  serve: () => Promise.reject(new Error('nothing is served here')),
  finish: () => undefined,
});

describe('docs/cli.md', () => {
  const list = /\n## Commands\n+```\n(.*?)```/s.exec(read('docs/cli.md'))?.[1] ?? '';
  const lines = list.split('\n').filter((line) => line.startsWith('quorate '));
  const documented = lines.map((line) => line.split(' ').slice(1));
  const commands = leaves(program);

  for (const [names, command] of commands) {
    test(`lists quorate ${names.join(' ')}, and its options are explained somewhere`, () => {
      assert.ok(documented.some((words) => isFor(words, names)));
      const all = pages.map((page) => read(page)).join('\n');
      for (const { long } of command.options) {
        assert.ok(long !== undefined && new RegExp(`${long}(?![\\w-])`).test(all), long ?? '');
      }
    });
  }

  test('lists nothing else', () => {
    for (const words of documented.filter(([first]) => first !== '--version')) {
      assert.ok(
        commands.some(([names]) => isFor(words, names)),
        words.join(' '),
      );
    }
  });
});

/** Of a heading, as renderers of Markdown make it. */
function anchorOf(heading: string): string {
  return heading
    .toLowerCase()
    .replaceAll(/[^\w\- ]/g, '')
    .replaceAll(' ', '-');
}

describe('links and scripts', () => {
  for (const page of pages) {
    test(`of ${page} lead somewhere`, () => {
      const text = read(page);
      for (const [, target = ''] of text.matchAll(/\]\(([^)\s]+)\)/g)) {
        if (/^[a-z]+:/.test(target)) continue;
        const [file = '', anchor] = target.split('#');
        const to = file === '' ? page : path.join(path.dirname(page), file);
        assert.ok(existsSync(path.join(root, to)), `${target} is not there`);
        if (anchor === undefined) continue;
        const headings = [...read(to).matchAll(/^#+ (.*)$/gm)].map(([, name = '']) =>
          anchorOf(name),
        );
        assert.ok(headings.includes(anchor), `${target}: no such heading`);
      }
      const { scripts } = JSON.parse(read('package.json'));
      for (const [, script = ''] of text.matchAll(/npm run (?:-\S+ )*([a-z]+)/g)) {
        assert.ok(script in scripts, `npm run ${script}`);
      }
    });
  }
});
