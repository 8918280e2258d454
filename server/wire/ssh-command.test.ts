import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { onlyWireErrors } from './arbitraries.js';
import { parseGitProtocol, writeGitProtocol } from './git-protocol.js';
import { parseSshCommand, writeSshCommand } from './ssh-command.js';

const accepted = [
  { line: "git-upload-pack '/team/app.git'", service: 'git-upload-pack', path: '/team/app.git' },
  { line: "git receive-pack 'team/app'", service: 'git-receive-pack', path: 'team/app' },
  { line: "git-upload-archive 'x'", service: 'git-upload-archive', path: 'x' },
  { line: "git-upload-pack 'it'\\''s'", service: 'git-upload-pack', path: "it's" },
  { line: "git-upload-pack 'a'\\!'b'", service: 'git-upload-pack', path: 'a!b' },
  { line: "git-upload-pack ''", service: 'git-upload-pack', path: '' },
];

for (const { line, service, path } of accepted) {
  test(`accepted: ${line}`, () => assert.deepEqual(parseSshCommand(line), { service, path }));
}

const refused = [
  { desc: 'nothing', line: '', kind: 'unsupported' },
  { desc: 'a shell', line: 'sh', kind: 'unsupported' },
  { desc: 'another git command', line: "git gc 'x'", kind: 'unsupported' },
  { desc: 'a leading space', line: " git-upload-pack 'x'", kind: 'unsupported' },
  { desc: 'a command in front', line: "id; git-upload-pack 'x'", kind: 'unsupported' },
  { desc: 'no path', line: 'git-upload-pack', kind: 'malformed' },
  { desc: 'a longer name', line: "git-upload-packer 'x'", kind: 'unsupported' },
  { desc: 'a path without quotes', line: 'git-upload-pack x', kind: 'malformed' },
  { desc: 'double quotes', line: 'git-upload-pack "x"', kind: 'malformed' },
  { desc: 'a second command', line: "git-upload-pack 'x'; id", kind: 'malformed' },
  { desc: 'a substitution outside quotes', line: "git-upload-pack 'x'$(id)", kind: 'malformed' },
  { desc: 'an open quote', line: "git-upload-pack 'x", kind: 'malformed' },
  { desc: 'a quote ended and begun', line: "git-upload-pack 'x''y'", kind: 'malformed' },
  { desc: 'another escape', line: "git-upload-pack 'x'\\n'y'", kind: 'malformed' },
  { desc: 'an option', line: "git-upload-pack --strict 'x'", kind: 'malformed' },
  { desc: 'NUL', line: "git-upload-pack 'x\0'", kind: 'malformed' },
  { desc: 'two spaces', line: "git-upload-pack  'x'", kind: 'malformed' },
  { desc: 'a huge line', line: `git-upload-pack '${'x'.repeat(20_000)}'`, kind: 'too-large' },
];

for (const { desc, line, kind } of refused) {
  test(`refused: ${desc}`, () => assert.throws(() => parseSshCommand(line), { kind }));
}

test('any path but one with NUL survives quoting', () => {
  const path = fc
    .string({ maxLength: 60, unit: 'grapheme' })
    .filter((text) => !text.includes('\0'));
  fc.assert(
    fc.property(path, (path) => {
      const command = { service: 'git-upload-pack', path } as const;
      assert.deepEqual(parseSshCommand(writeSshCommand(command)), command);
    }),
  );
});

test('hostile lines give a command or a WireError, in linear time', async () => {
  await fc.assert(
    fc.asyncProperty(fc.string(), (text) =>
      onlyWireErrors(() => parseSshCommand(`git-upload-pack '${text}'`)),
    ),
  );
  assert.throws(() => parseSshCommand(`git-upload-pack '${"'\\''".repeat(4000)}`));
});

test('GIT_PROTOCOL: the highest known version wins, nonsense is 0', () => {
  const cases: readonly (readonly [string | undefined, number])[] = [
    [undefined, 0],
    ['', 0],
    ['version=2', 2],
    ['version=1', 1],
    ['version=0', 0],
    ['version=3', 0],
    ['version=1:version=2', 2],
    ['foo:version=2:bar=baz', 2],
    ['version=22', 0],
    [`version=2:${'x'.repeat(2000)}`, 0],
  ];
  for (const [value, version] of cases) assert.equal(parseGitProtocol(value), version, value);
  for (const version of [0, 1, 2] as const) {
    assert.equal(parseGitProtocol(writeGitProtocol(version)), version);
  }
});
