import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { isTrouble, StderrLines, troubleOf } from './machine-trouble.js';

const said = 'fatal: cannot open x: Too many open files';
const oid = '12'.repeat(20);
const name = (text: string): string =>
  `fatal: entry '${text}' in tree ${oid} has tree mode, but is not a tree\n`;

const table: readonly (readonly [desc: string, stderr: string, trouble: string | undefined])[] = [
  ['a line', `${said}\n`, said],
  ['behind progress', `Receiving objects:  50% (1/2)\r${said}\n`, said],
  ['before other words', `${said}\nfatal: the remote end hung up\n`, said],
  ['before what names an entry', `${said}\n${name('x')}`, said],
  ['the name of an entry', name(`x\n${said}\ny`), undefined],
  ['the name of an entry that is cut short', name(`x\n${said}\ny`).slice(0, 70), undefined],
  ['what a disk says of its data', 'error: cannot read x: Input/output error\n', undefined],
  ['a helper that was killed', 'error: git died of signal 9\n', 'error: git died of signal 9'],
  ['a helper that died of what it read', 'error: git died of signal 11\n', undefined],
];

describe('words of the machine', () => {
  for (const [desc, stderr, trouble] of table) {
    it(`${desc}: ${trouble === undefined ? 'none' : 'found'}`, () => {
      assert.equal(troubleOf({ exitCode: 1, signal: null, stderr }), trouble);
    });
  }

  it('are found wherever the bytes are cut', () => {
    const bytes = Buffer.from(`Checking 1\rChecking 2\n${said}`);
    for (let cut = 0; cut <= bytes.length; cut++) {
      const found: string[] = [];
      const lines = new StderrLines((line) => void (isTrouble(line) && found.push(line)));
      lines.onStderr(bytes.subarray(0, cut));
      lines.onStderr(bytes.subarray(cut));
      lines.end();
      assert.deepEqual(found, [said], `cut at ${cut}`);
    }
  });
});
