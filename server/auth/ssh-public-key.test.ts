import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import * as fc from 'fast-check';
import { QuorateError } from '../../backends/contract/errors.js';
import { parseSshPublicKey, parseSshPublicKeyLine } from './ssh-public-key.js';

let directory = '';
before(() => {
  directory = mkdtempSync(join(tmpdir(), 'quorate-keys-'));
});
after(() => rmSync(directory, { recursive: true, force: true }));

function generate(name: string, ...options: readonly string[]): { line: string; file: string } {
  const file = join(directory, name);
  execFileSync('ssh-keygen', ['-q', '-N', '', '-C', `${name} of test`, '-f', file, ...options]);
  return { line: readFileSync(`${file}.pub`, 'utf8'), file };
}

function refusal(line: string): string {
  try {
    parseSshPublicKeyLine(line);
  } catch (error) {
    assert.ok(error instanceof QuorateError);
    assert.equal(error.code, 'invalid-argument');
    return error.message;
  }
  return assert.fail('the key was accepted');
}

describe('keys that ssh-keygen makes', () => {
  const kinds: readonly (readonly [string, ...string[]])[] = [
    ['ed25519', '-t', 'ed25519'],
    ['p256', '-t', 'ecdsa', '-b', '256'],
    ['p384', '-t', 'ecdsa', '-b', '384'],
    ['p521', '-t', 'ecdsa', '-b', '521'],
    ['rsa2048', '-t', 'rsa', '-b', '2048'],
    ['rsa3072', '-t', 'rsa', '-b', '3072'],
  ];
  for (const [name, ...options] of kinds) {
    test(name, () => {
      const { line, file } = generate(name, ...options);
      const { key, comment } = parseSshPublicKeyLine(line);
      const listed = execFileSync('ssh-keygen', ['-l', '-f', file], { encoding: 'utf8' });
      assert.equal(key.fingerprint, listed.split(' ')[1]);
      assert.equal(comment, `${name} of test`);
      assert.equal(key.type, line.split(' ')[0]);
    });
  }

  test('an RSA key of 1024 bits is too weak', () => {
    assert.match(
      refusal(generate('rsa1024', '-t', 'rsa', '-b', '1024').line),
      /at least 2048 bits.*1024/,
    );
  });

  test('a certificate is refused', () => {
    const ca = generate('ca', '-t', 'ed25519').file;
    const user = generate('certified', '-t', 'ed25519').file;
    execFileSync('ssh-keygen', ['-q', '-s', ca, '-I', 'id', '-n', 'alice', `${user}.pub`]);
    assert.match(refusal(readFileSync(`${user}-cert.pub`, 'utf8')), /certificate/);
  });

  test('a private key is refused, called one, and not repeated', () => {
    for (const format of ['RFC4716', 'PEM', 'PKCS8']) {
      const { file } = generate(`private-${format}`, '-t', 'rsa', '-b', '2048', '-m', format);
      const text = readFileSync(file, 'utf8');
      for (const pasted of [text, text.split('\n').slice(1, 3).join('')]) {
        const message = refusal(pasted);
        for (const word of text.split(/\s+/).filter((part) => part.length > 20)) {
          assert.ok(!message.includes(word));
        }
      }
      assert.match(refusal(text), /private key/);
    }
  });
});

const wire = (...fields: readonly (string | Uint8Array)[]): Buffer =>
  Buffer.concat(
    fields.map((field) => {
      const bytes = Buffer.from(field);
      const length = Buffer.alloc(4);
      length.writeUInt32BE(bytes.length);
      return Buffer.concat([length, bytes]);
    }),
  );
const lineOf = (type: string, blob: Buffer): string => `${type} ${blob.toString('base64')}`;

describe('lines that are no public key', () => {
  const ed25519 =
    'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl';
  const modulus = Buffer.alloc(257, 0xff).fill(0, 0, 1);

  const cases: readonly { desc: string; line: string; says: RegExp }[] = [
    { desc: 'nothing', line: ' \n', says: /no public key/ },
    { desc: 'two lines', line: `${ed25519}\n${ed25519}\n`, says: /one public key at a time/ },
    { desc: 'options', line: `command="true",no-pty ${ed25519}`, says: /options/ },
    { desc: 'unknown type', line: 'ssh-foo AAAA', says: /accepted/ },
    { desc: 'security key', line: 'sk-ssh-ed25519@openssh.com AAAA', says: /security devices/ },
    { desc: 'DSA', line: 'ssh-dss AAAAB3NzaC1kc3M=', says: /DSA/ },
    { desc: 'no base64', line: 'ssh-ed25519', says: /damaged/ },
    { desc: 'bad base64', line: 'ssh-ed25519 !!!!', says: /damaged/ },
    {
      desc: 'base64 with rubbish between',
      line: ed25519.replace('AAAAC3', 'AAA!AC3'),
      says: /damaged/,
    },
    { desc: 'cut short', line: ed25519.slice(0, -4), says: /damaged/ },
    { desc: 'trailing bytes', line: `${ed25519}AAAA`, says: /damaged/ },
    {
      desc: 'another type in the blob',
      line: ed25519.replace('ssh-ed25519', 'ssh-rsa'),
      says: /type/,
    },
    { desc: 'too long', line: `${ed25519} ${'c'.repeat(9000)}`, says: /at most/ },
    { desc: 'RFC 4716', line: '---- BEGIN SSH2 PUBLIC KEY ----\nAAAA\n', says: /ssh-keygen -i/ },
    {
      desc: 'point off the curve',
      line: lineOf(
        'ecdsa-sha2-nistp256',
        wire('ecdsa-sha2-nistp256', 'nistp256', Buffer.alloc(65, 1).fill(4, 0, 1)),
      ),
      says: /damaged/,
    },
    {
      desc: 'curve that is not the type',
      line: lineOf(
        'ecdsa-sha2-nistp256',
        wire('ecdsa-sha2-nistp256', 'nistp384', Buffer.alloc(65, 4)),
      ),
      says: /damaged/,
    },
    {
      desc: 'RSA exponent 1',
      line: lineOf('ssh-rsa', wire('ssh-rsa', Buffer.of(1), modulus)),
      says: /damaged/,
    },
    {
      desc: 'RSA of 20,000 bits',
      line: lineOf('ssh-rsa', wire('ssh-rsa', Buffer.of(3), Buffer.alloc(2500, 0x7f))),
      says: /at most/,
    },
    {
      desc: 'modulus with needless zeros: a second spelling of one key',
      line: lineOf(
        'ssh-rsa',
        wire('ssh-rsa', Buffer.of(3), Buffer.concat([Buffer.of(0), modulus])),
      ),
      says: /damaged/,
    },
  ];
  for (const { desc, line, says } of cases) test(desc, () => assert.match(refusal(line), says));

  test('control characters never reach the comment', () => {
    const { comment } = parseSshPublicKeyLine(`${ed25519} me\u001b[31m@\u0007host  again`);
    assert.equal(comment, 'me[31m@host again');
  });

  test('every truncation of a good blob is refused', () => {
    const { key } = parseSshPublicKeyLine(ed25519);
    for (let length = 0; length < key.blob.length; length++) {
      assert.throws(() => parseSshPublicKey(key.blob.subarray(0, length)), QuorateError);
    }
  });
});

const accepts = (bytes: Uint8Array): boolean => {
  try {
    parseSshPublicKey(bytes);
    return true;
  } catch (error) {
    assert.ok(error instanceof QuorateError && error.code === 'invalid-argument', String(error));
    return false;
  }
};

describe('whatever comes over the wire', () => {
  const { blob } = parseSshPublicKeyLine(
    'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl',
  ).key;
  test('noise is refused', () => {
    fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => !accepts(bytes)));
  });

  test('noise behind a good type is refused', () => {
    const types = fc.constantFrom('ssh-rsa', 'ecdsa-sha2-nistp256', 'ecdsa-sha2-nistp521');
    const fields = fc.array(fc.uint8Array({ maxLength: 80 }), { maxLength: 5 });
    fc.assert(fc.property(types, fields, (type, parts) => !accepts(wire(type, ...parts))));
  });

  test('a changed byte makes another key or none', () => {
    const position = fc.nat({ max: blob.length - 1 });
    fc.assert(
      fc.property(position, fc.integer({ min: 1, max: 255 }), (index, change) => {
        const bytes = Uint8Array.from(blob);
        bytes[index] = (bytes[index] ?? 0) ^ change;
        // The last 32 bytes are the key itself.
        return accepts(bytes) === index >= blob.length - 32;
      }),
    );
  });
});
