"""The data mart: SparkSQL over predictions."""

from pyspark.sql import DataFrame

MART_SQL = """
SELECT to_date(landed_at) AS day,
       registered_domain,
       predicted_class,
       count(*) AS urls,
       avg(probability) AS mean_probability,
       max(probability) AS max_probability,
       min(landed_at) AS first_seen,
       max(landed_at) AS last_seen
FROM (SELECT *, greatest(p_benign, p_defacement, p_malicious, p_malware, p_phishing) AS probability FROM {predictions})
GROUP BY ALL
"""

TOP_SQL = """
WITH domains AS (
  SELECT registered_domain,
         sum(CASE WHEN predicted_class != 'benign' THEN urls ELSE 0 END) AS malicious_urls,
         sum(urls) AS urls,
         max_by(predicted_class, CASE WHEN predicted_class != 'benign' THEN urls ELSE 0 END) AS main_class,
         sum(CASE WHEN predicted_class != 'benign' THEN urls * mean_probability END) AS weight,
         min(first_seen) AS first_seen,
         max(last_seen) AS last_seen
  FROM (SELECT registered_domain, predicted_class, sum(urls) AS urls,
               sum(urls * mean_probability) / sum(urls) AS mean_probability,
               min(first_seen) AS first_seen, max(last_seen) AS last_seen
        FROM {mart} GROUP BY registered_domain, predicted_class)
  GROUP BY registered_domain
)
SELECT row_number() OVER (ORDER BY malicious_urls DESC, registered_domain) AS rank,
       registered_domain, malicious_urls, urls, main_class, weight / malicious_urls AS mean_probability,
       first_seen, last_seen
FROM domains
WHERE malicious_urls > 0
ORDER BY rank
LIMIT {limit}
"""


def prediction_mart(predictions: DataFrame) -> DataFrame:
    """One row per day of landing (UTC), registered domain and predicted class."""
    return predictions.sparkSession.sql(MART_SQL, predictions=predictions)


def top_domains(mart: DataFrame, limit: int = 100) -> DataFrame:
    """The domains with the most URLs predicted malicious, ties by name so that a re-run gives the same rows."""
    ranked = mart.sparkSession.sql(TOP_SQL, mart=mart, limit=limit)
    return ranked.withColumn("rank", ranked["rank"].cast("bigint"))
