import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { commandSection, errorIn, HostileGround, pktText, zeroOid } from './hostile-ground.js';
import type { HostileService } from './hostile-ground.js';

/** Broken framing gets status 400 and a sentence over HTTP, an `ERR` packet and exit status 128 over SSH. */
interface BrokenRequest {
  readonly desc: string;
  readonly bytes: string | Uint8Array;
  readonly says: RegExp;
  /** Over SSH a client that only stops is not told. Default false. */
  readonly truncated?: boolean;
}

const oid = '1'.repeat(40);
const command = `${zeroOid} ${oid} refs/heads/x`;

const forEveryService: readonly BrokenRequest[] = [
  { desc: 'a length that is no number', bytes: 'zzzz', says: /bad pkt-line length 'zzzz'/ },
  { desc: 'a negative length', bytes: '-001', says: /bad pkt-line length '-001'/ },
  { desc: 'a length with a prefix', bytes: '0x10', says: /bad pkt-line length '0x10'/ },
  { desc: 'a length with a space', bytes: ' 032', says: /bad pkt-line length ' 032'/ },
  { desc: 'a length with a NUL', bytes: '00\0\0', says: /bad pkt-line length/ },
  { desc: 'a length of 3', bytes: '0003', says: /bad pkt-line length 3/ },
  { desc: 'a length of 65535', bytes: `ffff${'a'.repeat(65_531)}`, says: /length 65535/ },
  { desc: 'a length of 65521', bytes: `fff1${'a'.repeat(65_517)}`, says: /length 65521/ },
  { desc: 'a response-end', bytes: '0002', says: /unexpected|expected/ },
  { desc: 'an empty packet', bytes: '0004', says: /.+/ },
  { desc: 'bytes of another protocol', bytes: 'GET / HTTP/1.1\r\n\r\n', says: /length 'GET '/ },
  { desc: 'a line that is not UTF-8', bytes: latin1('0009\xff\xfe\xfd\xfc\xfb'), says: /UTF-8/ },
  { desc: 'a cut length', bytes: '00', says: /ended inside a pkt-line/, truncated: true },
  { desc: 'a cut line', bytes: '0032want 1', says: /ended inside a pkt-line/, truncated: true },
];

const pushes: readonly BrokenRequest[] = [
  { desc: 'a delimiter among commands', bytes: '0001', says: /unexpected delim/ },
  { desc: 'no command', bytes: pktText('hello\n'), says: /expected old\/new\/ref/ },
  {
    desc: 'upper case ids',
    bytes: pktText(`${zeroOid} ${'A'.repeat(40)} refs/heads/x`),
    says: /old\/new\/ref/,
  },
  {
    desc: 'short ids',
    bytes: pktText(`${'0'.repeat(39)} ${oid} refs/heads/x`),
    says: /object id|oid/,
  },
  {
    desc: 'ids of another format',
    bytes: commandSection([
      { oldOid: '0'.repeat(64), newOid: '1'.repeat(64), ref: 'refs/heads/x' },
    ]),
    says: /object ids are sha1/,
  },
  {
    desc: 'another object format',
    bytes: commandSection(
      [{ newOid: oid, ref: 'refs/heads/x' }],
      'report-status object-format=sha256',
    ),
    says: /object format is sha1/,
  },
  { desc: 'no ref', bytes: pktText(`${zeroOid} ${oid} `), says: /old\/new\/ref/ },
  { desc: 'a bad shallow line', bytes: pktText('shallow x\n'), says: /object id|oid/ },
  { desc: 'commands without end', bytes: pktText(command), says: /cut off/, truncated: true },
  {
    desc: 'options without end',
    bytes:
      commandSection(
        [{ newOid: oid, ref: 'refs/heads/x' }],
        'report-status side-band-64k push-options',
      ) + pktText('a'),
    says: /cut off/,
    truncated: true,
  },
];

const fetchesV0: readonly BrokenRequest[] = [
  { desc: 'a delimiter among wants', bytes: '0001', says: /unexpected delim|expected/ },
  { desc: 'no want', bytes: pktText('hello\n'), says: /.+/ },
  { desc: 'a short want', bytes: pktText('want 123\n'), says: /.+/ },
  {
    desc: 'an absurd depth',
    bytes: `${pktText(`want ${oid}\n`)}${pktText(`deepen ${'9'.repeat(30)}\n`)}0000`,
    says: /deepen|depth/,
  },
  {
    desc: 'a negative depth',
    bytes: `${pktText(`want ${oid}\n`)}${pktText('deepen -1\n')}0000`,
    says: /deepen|depth/,
  },
];

const fetchesV2: readonly BrokenRequest[] = [
  { desc: 'a delimiter first', bytes: '00010000', says: /no command/ },
  { desc: 'no command', bytes: `${pktText('hello')}0000`, says: /.+/ },
  {
    desc: 'two commands',
    bytes: `${pktText('command=ls-refs')}${pktText('command=fetch')}0000`,
    says: /.+/,
  },
  { desc: 'two delimiters', bytes: `${pktText('command=ls-refs')}000100010000`, says: /.+/ },
  { desc: 'a request without end', bytes: pktText('command=ls-refs'), says: /.+/, truncated: true },
];

/** Well-formed, and answered with no: in git's form over HTTP as well. */
const refusedV2 = [
  {
    desc: 'an unknown argument',
    bytes: `${pktText('command=ls-refs')}0001${pktText('hello')}0000`,
    says: /ls-refs: unexpected line: 'hello'/,
  },
  {
    desc: 'too many capabilities',
    bytes: `${pktText('command=ls-refs')}${pktText('server-option=a').repeat(257)}0000`,
    says: /too many capabilities/,
  },
  {
    desc: 'a filter that is too long',
    bytes: `${pktText('command=fetch')}0001${pktText(`filter ${'a'.repeat(60_000)}`)}0000`,
    says: /filter too long/,
  },
  {
    desc: 'an unknown command',
    bytes: `${pktText('command=rm-rf')}0000`,
    says: /invalid command 'rm-rf'/,
  },
  {
    desc: 'an unknown capability',
    bytes: `${pktText('command=ls-refs')}${pktText('evil=1')}0000`,
    says: /unknown capability 'evil'/,
  },
  {
    desc: 'another object format',
    bytes: `${pktText('command=ls-refs')}${pktText('object-format=sha256')}0000`,
    says: /mismatched object format/,
  },
  {
    desc: 'a want that is not here',
    bytes: `${pktText('command=fetch')}0001${pktText(`want ${oid}`)}${pktText('done')}0000`,
    says: /not our ref/,
  },
  {
    desc: 'a want-ref that is not here',
    bytes: `${pktText('command=fetch')}0001${pktText('want-ref refs/heads/none')}${pktText('done')}0000`,
    says: /unknown ref refs\/heads\/none/,
  },
  {
    desc: 'a filter that makes the server evaluate expressions',
    bytes: `${pktText('command=fetch')}0001${pktText(`want ${oid}`)}${pktText('filter sparse:oid=main:x')}${pktText('done')}0000`,
    says: /sparse|not our ref/,
  },
];

/** The same for pushes: on side-band 3 where the client has side-bands. */
const refusedPushes = [
  {
    desc: 'a signed push',
    bytes: `${pktText('push-cert\0report-status')}${pktText('certificate version 0.1\n')}`,
    says: /signed pushes are not supported here/,
  },
  {
    desc: 'too many shallow lines',
    bytes: pktText(`shallow ${oid}`).repeat(10_001),
    says: /more than 10000 shallow commits/,
  },
  {
    desc: 'too many push options',
    bytes:
      commandSection(
        [{ newOid: oid, ref: 'refs/heads/x' }],
        'report-status side-band-64k push-options',
      ) +
      pktText('a').repeat(101) +
      '0000',
    says: /push options: at most 100/,
  },
  {
    desc: 'push options too long',
    bytes:
      commandSection(
        [{ newOid: oid, ref: 'refs/heads/x' }],
        'report-status side-band-64k push-options',
      ) +
      pktText('a'.repeat(65_000)).repeat(2) +
      '0000',
    says: /65536 bytes in all/,
  },
] as const;

const kinds: readonly {
  readonly name: string;
  readonly service: HostileService;
  readonly protocol: 0 | 2;
  readonly table: readonly BrokenRequest[];
}[] = [
  {
    name: 'a push',
    service: 'git-receive-pack',
    protocol: 0,
    table: [...forEveryService, ...pushes],
  },
  {
    name: 'a v0 fetch',
    service: 'git-upload-pack',
    protocol: 0,
    table: [...forEveryService, ...fetchesV0],
  },
  {
    name: 'a v2 fetch',
    service: 'git-upload-pack',
    protocol: 2,
    table: [...forEveryService, ...fetchesV2],
  },
];

describe('broken framing', () => {
  let ground: HostileGround;
  before(async () => {
    ground = await HostileGround.create();
  });
  after(() => ground.close());

  for (const { name, service, protocol, table } of kinds) {
    for (const { desc, bytes, says, truncated = false } of table) {
      test(`${name} with ${desc}`, async () => {
        const input = Buffer.from(bytes);
        const overHttp = await ground.post(service, input, { protocol });
        assert.deepEqual(
          { status: overHttp.status, type: overHttp.headers['content-type'] },
          { status: 400, type: 'text/plain; charset=utf-8' },
          overHttp.body.toString(),
        );
        assert.match(overHttp.body.toString(), says);

        const overSsh = await ground.ssh(`${service} '/victim.git'`, input, {
          protocol,
          // The client waits for an answer; one whose bytes are cut has closed its side.
          keepOpen: !truncated,
        });
        assert.equal(overSsh.exitCode, 128, overSsh.stderr);
        assert.match((await errorIn(overSsh.stdout)) ?? '', says);
        await ground.assertUnharmed();
      });
    }
  }

  for (const { desc, bytes, says } of refusedV2) {
    test(`a v2 request with ${desc} is answered by an ERR packet`, async () => {
      const overHttp = await ground.post('git-upload-pack', Buffer.from(bytes), { protocol: 2 });
      assert.equal(overHttp.status, 200);
      assert.match((await errorIn(overHttp.body)) ?? '', says);
      const overSsh = await ground.ssh("git-upload-pack '/victim.git'", Buffer.from(bytes), {
        protocol: 2,
        keepOpen: true,
      });
      assert.equal(overSsh.exitCode, 128);
      assert.match((await errorIn(overSsh.stdout)) ?? '', says);
      await ground.assertUnharmed();
    });
  }

  for (const { desc, bytes, says } of refusedPushes) {
    test(`a push with ${desc} is refused in words that git shows`, async () => {
      const overHttp = await ground.post('git-receive-pack', Buffer.from(bytes));
      assert.equal(overHttp.status, 200);
      assert.match((await errorIn(overHttp.body)) ?? '', says);
      const overSsh = await ground.ssh("git-receive-pack '/victim.git'", Buffer.from(bytes), {
        keepOpen: true,
      });
      assert.equal(overSsh.exitCode, 128);
      assert.match((await errorIn(overSsh.stdout)) ?? '', says);
      await ground.assertUnharmed();
    });
  }

  test('a push over SSH that stops before its first command ends quietly', async () => {
    const answer = await ground.ssh("git-receive-pack '/victim.git'");
    assert.deepEqual(
      { exitCode: answer.exitCode, stderr: answer.stderr },
      { exitCode: 0, stderr: '' },
    );
    await ground.assertUnharmed();
  });
});

function latin1(text: string): Buffer {
  return Buffer.from(text, 'latin1');
}
