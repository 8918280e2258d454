import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { after, before, describe, test } from 'node:test';
import { FakeGitService } from './testing/fake-git-service.js';
import { collect, createSshScene, type SshScene } from './testing/ssh-scene.js';
import { until } from '../../backends/contract/testing/until.js';

const service = new FakeGitService();
let scene: SshScene;
let key = '';

before(async () => {
  scene = await createSshScene(service);
  key = scene.addKey('alice', { keygen: ['-t', 'ed25519'] });
});
after(() => scene.close());

const runs = (command: string) => scene.ssh(key, 'git@127.0.0.1', command);

describe('who may log in', () => {
  const kinds: readonly (readonly [string, ...string[]])[] = [
    ['ed25519', '-t', 'ed25519'],
    ['ecdsa-256', '-t', 'ecdsa', '-b', '256'],
    ['ecdsa-384', '-t', 'ecdsa', '-b', '384'],
    ['ecdsa-521', '-t', 'ecdsa', '-b', '521'],
    ['rsa-2048', '-t', 'rsa', '-b', '2048'],
    ['rsa-4096', '-t', 'rsa', '-b', '4096'],
  ];
  for (const [name, ...keygen] of kinds) {
    test(`a user with a key of type ${name}`, async () => {
      const file = scene.addKey(name, { keygen, user: `user-${name}` });
      const { stdout, exitCode } = await scene.ssh(
        file,
        'whoever@127.0.0.1',
        "git-upload-pack '/facts'",
      );
      assert.equal(exitCode, 0);
      const facts: unknown = JSON.parse(stdout.toString());
      assert.match(JSON.stringify(facts), new RegExp(`"name":"user-${name}"`));
    });
  }

  test('RSA with SHA-1 is refused', async () => {
    const options = ['-o', 'PubkeyAcceptedAlgorithms=ssh-rsa'];
    const file = scene.addKey('sha1', { keygen: ['-t', 'rsa', '-b', '2048'] });
    const { exitCode, stderr } = await scene.ssh(
      file,
      ...options,
      'git@127.0.0.1',
      "git-upload-pack '/facts'",
    );
    assert.equal(exitCode, 255);
    assert.match(stderr, /Permission denied \(publickey\)/);
  });

  test('a stranger is refused, and the audit log names the key', async () => {
    const file = scene.addKey('stranger', { keygen: ['-t', 'ed25519'], stranger: true });
    const { exitCode, stderr } = await scene.ssh(file, 'git@127.0.0.1', "git-upload-pack '/facts'");
    assert.equal(exitCode, 255);
    assert.match(stderr, /Permission denied \(publickey\)/);
    const listed = execFileSync('ssh-keygen', ['-l', '-f', `${file}.pub`], { encoding: 'utf8' });
    await until('the audit line', () =>
      scene.audited.some(
        ({ outcome, details }) =>
          outcome === 'refused' && JSON.stringify(details).includes(listed.split(' ')[1] ?? '-'),
      ),
    );
  });

  test('nobody by password', async () => {
    const options = [
      '-o',
      'PubkeyAuthentication=no',
      '-o',
      'PreferredAuthentications=password,none',
    ];
    const { exitCode } = await scene.ssh(
      key,
      ...options,
      'git@127.0.0.1',
      "git-upload-pack '/facts'",
    );
    assert.equal(exitCode, 255);
  });

  for (const [option, algorithm] of [
    ['HostKeyAlgorithms', 'ssh-rsa'],
    ['KexAlgorithms', 'diffie-hellman-group14-sha1'],
    ['Ciphers', 'aes128-cbc'],
    ['MACs', 'hmac-sha1'],
  ] as const) {
    test(`nobody with ${algorithm}`, async () => {
      // MACs matter only to ciphers that have none of their own.
      const cipher = option === 'MACs' ? ['-o', 'Ciphers=aes128-ctr'] : [];
      const file = scene.addKey(`weak-${algorithm}`, { keygen: ['-t', 'ed25519'] });
      const { exitCode, stderr } = await scene.ssh(
        file,
        '-o',
        `${option}=${algorithm}`,
        '-v',
        ...cipher,
        'git@127.0.0.1',
        "git-upload-pack '/facts'",
      );
      assert.equal(exitCode, 255);
      assert.match(stderr, /no matching/);
    });
  }

  for (const algorithm of ['ssh-ed25519', 'ecdsa-sha2-nistp256', 'rsa-sha2-512', 'rsa-sha2-256']) {
    test(`the server proves itself with ${algorithm}`, async () => {
      const options = [
        '-o',
        `HostKeyAlgorithms=${algorithm}`,
        '-o',
        'UserKnownHostsFile=/dev/null',
      ];
      const { exitCode } = await scene.ssh(
        key,
        ...options,
        'git@127.0.0.1',
        "git-upload-pack '/facts'",
      );
      assert.equal(exitCode, 0);
    });
  }

  for (const [option, algorithm] of [
    ['KexAlgorithms', 'ecdh-sha2-nistp521'],
    ['KexAlgorithms', 'diffie-hellman-group14-sha256'],
    ['KexAlgorithms', 'diffie-hellman-group16-sha512'],
    ['Ciphers', 'aes256-gcm@openssh.com'],
    ['Ciphers', 'aes128-ctr'],
    ['Ciphers', 'aes256-ctr'],
    ['MACs', 'hmac-sha2-512'],
  ] as const) {
    test(`${algorithm} works`, async () => {
      const cipher = option === 'MACs' ? ['-o', 'Ciphers=aes128-ctr'] : [];
      const { stdout } = await scene.ssh(
        key,
        '-o',
        `${option}=${algorithm}`,
        ...cipher,
        'git@127.0.0.1',
        "git-upload-pack 'source/300000'",
      );
      assert.equal(stdout.length, 300_000);
    });
  }
});

describe('a login without a command', () => {
  const greeting =
    'Hi alice! You have successfully authenticated, but Quorate does not provide shell access.';

  test('is greeted and ends', async () => {
    const { stdout, stderr, exitCode } = await scene.ssh(key, 'git@127.0.0.1');
    assert.deepEqual([stdout.toString(), stderr, exitCode], [`${greeting}\n`, '', 0]);
  });

  test('with a terminal, the line ends as terminals need it', async () => {
    const { stdout, exitCode } = await scene.ssh(key, '-tt', 'git@127.0.0.1');
    assert.deepEqual([stdout.toString(), exitCode], [`${greeting}\r\n`, 0]);
  });
});

describe('commands', () => {
  for (const spelling of ['upload-pack', 'receive-pack', 'upload-archive']) {
    test(`git ${spelling}, in both spellings`, async () => {
      for (const command of [`git-${spelling} '/facts'`, `git ${spelling} 'facts'`]) {
        const { stdout } = await runs(command);
        const facts = stdout.toString();
        assert.ok(facts.includes(`"service":"git-${spelling}"`), facts);
        assert.ok(facts.includes('"mode":"session"'));
        assert.ok(facts.includes('"protocol":0'));
      }
    });
  }

  test('GIT_PROTOCOL comes through, and nothing else', async () => {
    for (const [value, protocol] of [
      ['version=2', 2],
      ['version=1', 1],
      ['version=9', 0],
    ] as const) {
      const { stdout } = await scene.ssh(
        key,
        '-o',
        `SetEnv=GIT_PROTOCOL=${value} LD_PRELOAD=x`,
        'git@127.0.0.1',
        "git-upload-pack 'facts'",
      );
      assert.ok(stdout.toString().includes(`"protocol":${protocol}`));
    }
  });

  const hostile: readonly string[] = [
    "git-upload-pack 'facts'; rm -rf /",
    'git-upload-pack $(touch /tmp/x)',
    'git-upload-pack `id`',
    'git-upload-pack "facts"',
    'git-upload-pack facts',
    "git-upload-pack 'facts",
    "git-upload-pack 'facts' 'again'",
    "git-upload-pack 'facts' && id",
    'git-upload-pack',
    'git-upload-pack ',
    "git-shell -c 'git-upload-pack facts'",
    "git-upload-pack\n'facts'",
    'scp -t /etc/passwd',
    'bash -i',
    "git-upload-pack '" + 'a'.repeat(20_000) + "'",
  ];
  for (const command of hostile) {
    test(`refuses ${JSON.stringify(command.slice(0, 50))}`, async () => {
      const before = service.exchanges.length;
      const { stdout, stderr, exitCode } = await runs(command);
      assert.deepEqual([stdout.length, exitCode], [0, 128]);
      assert.match(stderr, /^ERROR: [^\n]+\n$/);
      assert.equal(service.exchanges.length, before);
    });
  }

  test('a refused command is logged as a request of who sent it', async () => {
    const before = scene.logged.length;
    await runs('ls');
    const { fields, message } = scene.logged.slice(before).at(-1) ?? {};
    assert.equal(message, 'request');
    assert.deepEqual(
      [fields?.['principal'], fields?.['outcome'], fields?.['error']],
      ['alice', 'refused', 'invalid-argument'],
    );
    assert.match(String(fields?.['reason']), /^only git-upload-pack, /);
  });

  test('a path is data, whatever is in it', async () => {
    for (const path of [
      'facts/$(id)',
      "facts/it's",
      'facts/`id`',
      'facts/a;b|c&d',
      'facts/!x',
      'facts/ü\nz',
    ]) {
      const quoted = path.replace(/['!]/g, (character) => `'\\${character}'`);
      const { stdout } = await runs(`git-upload-pack '${quoted}'`);
      const answer: unknown = JSON.parse(stdout.toString());
      assert.ok(typeof answer === 'object' && answer !== null && 'path' in answer);
      assert.equal(answer.path, path);
    }
  });

  test('100 KB of command end the connection, not the server', async () => {
    const { exitCode } = await runs(`git-upload-pack '${'a'.repeat(100_000)}'`);
    assert.notEqual(exitCode, 0);
    assert.equal((await runs("git-upload-pack 'facts'")).exitCode, 0);
  });

  test('subsystems and forwarding are refused', async () => {
    const sftp = await scene.ssh(key, '-s', 'git@127.0.0.1', 'sftp');
    assert.equal(sftp.exitCode, 255);
    assert.match(sftp.stderr, /subsystem request failed/);
    const forward = await scene.ssh(key, '-W', '127.0.0.1:9', 'git@127.0.0.1');
    assert.equal(forward.exitCode, 255);
    assert.match(forward.stderr, /forwarding failed/);
    const remote = await scene.ssh(
      key,
      '-o',
      'ExitOnForwardFailure=yes',
      '-R',
      '0:127.0.0.1:9',
      'git@127.0.0.1',
    );
    assert.equal(remote.exitCode, 255);
  });
});

describe('the end of an exchange', () => {
  test('exit status and errors reach the client', async () => {
    assert.equal((await runs("git-upload-pack 'exit/7'")).exitCode, 7);
    const missing = await runs("git-upload-pack 'fail/not-found'");
    assert.deepEqual([missing.stderr, missing.exitCode], ['ERROR: no such luck: not-found\n', 128]);
    const internal = await runs("git-upload-pack 'fail/internal'");
    assert.match(
      internal.stderr,
      /^ERROR: the server failed; its log has the details as [0-9a-f]{16}\n$/,
    );
    const colourful = await runs("git-upload-pack 'run-fail/permission-denied'");
    assert.equal(colourful.stderr, 'ERROR: no [31m such luck\n');
  });

  test('an unknown outcome has no exit status', async () => {
    const { stderr, exitCode } = await runs("git-receive-pack 'run-fail/outcome-unknown'");
    assert.equal(exitCode, 255);
    assert.doesNotMatch(stderr, /luck/);
  });

  test('everything arrives before the exit status, after the client has closed its side', async () => {
    const { stdout, exitCode } = await runs("git-upload-pack 'source/5000001'");
    assert.deepEqual([stdout.length, exitCode], [5_000_001, 0]);
  });

  test('bytes come back as they went', async () => {
    const child = scene.start(key, 'git@127.0.0.1', "git-receive-pack 'echo'");
    const sent = Buffer.from(Array.from({ length: 3_000_000 }, (_, index) => (index * 7) & 0xff));
    child.stdin.end(sent);
    const { stdout, exitCode } = await collect(child);
    assert.ok(stdout.equals(sent));
    assert.equal(exitCode, 0);
  });
});

test('git lists refs through ssh', async () => {
  const ssh = ['ssh', ...scene.sshOptions(key)].map((word) => `'${word}'`).join(' ');
  const url = `ssh://git@127.0.0.1:${scene.port}/advertise`;
  const git = spawn('git', ['-c', 'protocol.version=0', 'ls-remote', url], {
    env: { ...process.env, GIT_SSH_COMMAND: ssh },
  });
  const { stdout, stderr } = await collect(git);
  assert.equal(stdout.toString(), `${'1'.repeat(40)}\trefs/heads/main\n`, stderr);
});
