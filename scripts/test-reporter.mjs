// Reporter for `node --test`: progress, failures in full, the tests of each file, and, last of all, the counts as JSON
// in TEST_COUNTS_FILE.
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { inspect } from 'node:util';
import { TestProgress } from './test-progress.mjs';

/** How often it is looked what takes long. */
const lookEveryMs = 5_000;

export default async function* report(source) {
  const counts = { passed: 0, failed: 0, skipped: 0 };
  const files = new Map();
  const progress = new TestProgress(
    process.stdout.isTTY ? process.stdout.columns || 80 : undefined,
  );
  const looking = setInterval(() => {
    process.stdout.write(progress.linger(performance.now()));
  }, lookEveryMs);
  for await (const event of source) {
    const { type, data } = event;
    const shown = progress.take(event, performance.now());
    if (shown !== undefined) yield shown;
    // Shown when the file's turn comes, which may be long after it ended.
    if (type === 'test:stderr' || type === 'test:stdout') {
      yield progress.around(`${path.relative(process.cwd(), data.file)}: ${data.message}`);
    }
    if (type !== 'test:pass' && type !== 'test:fail') continue;
    // What only holds other tests, or failed only since one of them did, is not counted again.
    if (data.details?.type === 'suite') continue;
    if (type === 'test:fail' && data.details?.error?.failureType === 'subtestsFailed') continue;
    const file = path.relative(process.cwd(), data.file ?? data.name);
    const verdict = verdictOf(type, data);
    counts[verdict] += 1;
    files.set(file, (files.get(file) ?? 0) + 1);
    if (verdict !== 'passed') yield progress.around(describe(verdict, file, data));
    const hungAt = type === 'test:fail' ? progress.hungAt(data.name) : undefined;
    if (hungAt !== undefined) yield `its time was up at: ${hungAt}\n\n`;
  }
  clearInterval(looking);
  yield progress.around('');
  const sorted = [...files].sort(([a], [b]) => a.localeCompare(b));
  for (const [file, count] of sorted) yield `${String(count).padStart(5)}  ${file}\n`;
  writeFileSync(process.env.TEST_COUNTS_FILE, JSON.stringify(counts));
}

function verdictOf(type, data) {
  // A `todo` that fails is a failure here: the tests on the main branch pass.
  if (type === 'test:fail') return 'failed';
  return data.skip === undefined || data.skip === false ? 'passed' : 'skipped';
}

function describe(verdict, file, data) {
  const place = `${file}${data.line === undefined ? '' : `:${data.line}`}`;
  if (verdict === 'skipped') return `SKIPPED ${place} ${data.name}\n`;
  const error = data.details?.error;
  const cause = error?.cause ?? error;
  const seconds = ((data.details?.duration_ms ?? 0) / 1000).toFixed(1);
  return `\nFAILED ${place} ${data.name} (${seconds} s)\n${inspect(cause, { depth: 6 })}\n\n`;
}
