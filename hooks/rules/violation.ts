/** What a rule was broken by: label of the metric. */
export type Demand =
  | 'push'
  | 'no-force-push'
  | 'no-deletion'
  | 'linear-history'
  | 'signed-commits'
  | 'max-file-size'
  | 'forbidden-paths'
  | 'commit-message'
  | 'not-judged';

export interface Violation {
  readonly demand: Demand;
  readonly reason: string;
}
