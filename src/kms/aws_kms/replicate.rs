//! Creates replicas of a multi-Region key from its primary, with the key policy of the primary. Finds replicas that exist.

use aws_sdk_kms::{operation::replicate_key::ReplicateKeyError, types::KeyMetadata};

use crate::domain::WrapperKey;

use super::{
    credentials::Action,
    error::{sort, unusable_answer},
    key_arn::AwsKey,
    provider::{AwsProvider, DESCRIPTION, tags},
};
use crate::kms::{CreateOptions, WrapperError, provider::unfit};

impl AwsProvider {
    /// Whether a replica in `region` may be created, as far as this can be checked without calling AWS.
    pub(super) fn check_replication(&self, key: &WrapperKey, region: &str) -> Result<(), WrapperError> {
        let aws: AwsKey = key.identity.parse().map_err(|_| unfit(&key.reference, "its identity is not that of a KMS key"))?;
        if !self.settings.config.may_create {
            return Err(unfit(&key.reference, "this vault may not create replicas; set may_create under [wrapper], or create it yourself"));
        }
        if !aws.is_multi_region() {
            return Err(unfit(&key.reference, "only a multi-Region key (mrk-…) has replicas"));
        }
        self.check_region(&key.reference, region)?;
        self.check_allowed(&aws, region)
    }

    /// Asks the primary for a replica, unless one exists. A call is not retried: a repeated call of the operator finds the replica that the
    /// first one created.
    pub(super) async fn create_replica(&self, key: &WrapperKey, region: &str) -> Result<(), WrapperError> {
        let (aws, home) = AwsKey::from_arn(&key.reference).map_err(|_| unfit(&key.reference, "its reference is not a key ARN"))?;
        let metadata = self.look_at(key, &aws, home).await?;
        let regions = metadata.multi_region_configuration().ok_or_else(|| unusable_answer(&key.reference))?;
        let primary = regions.primary_key().and_then(|primary| primary.region()).ok_or_else(|| unusable_answer(&key.reference))?;
        if primary == region || regions.replica_keys().iter().any(|replica| replica.region() == Some(region)) {
            return Ok(());
        }
        self.check_region(&key.reference, primary)?;
        self.check_allowed(&aws, primary)?;
        let (arn, client) = (aws.arn(primary), self.clients.client(primary).await);

        // Without a policy, AWS applies the default policy, which lets every identity policy of the account permit the use of the key.
        let ask = client.get_key_policy().key_id(&arn).policy_name("default");
        let credentials = self.clients.credentials().await;
        let action = Action { name: "GetKeyPolicy", region: primary };
        let policy = self.in_time(&arn, Box::pin(credentials.send(action, &arn, "kms:GetKeyPolicy", || ask.clone().send()))).await?;
        let policy = policy.policy.ok_or_else(|| unusable_answer(&arn))?;
        let request = client.replicate_key().key_id(&arn).replica_region(region).policy(policy);
        // The safety check demands that the caller may change the policy. The vault should not have that permission.
        let request = request.bypass_policy_lockout_safety_check(true);
        let request = request.description(DESCRIPTION).set_tags(Some(tags(&CreateOptions::default())?));
        let made = async {
            match credentials.recorded(Action { name: "ReplicateKey", region: primary }, request.send()).await {
                Ok(_) => Ok(()),
                Err(error) if error.as_service_error().is_some_and(ReplicateKeyError::is_already_exists_exception) => Ok(()),
                Err(error) => Err(sort(&arn, "kms:ReplicateKey, kms:CreateKey and kms:TagResource", &error, credentials.now())),
            }
        };
        self.in_time(&arn, Box::pin(made)).await
    }

    /// What the first region that answers reports of the key.
    async fn look_at(&self, key: &WrapperKey, aws: &AwsKey, home: String) -> Result<KeyMetadata, WrapperError> {
        let mut last = unfit(&key.reference, "it exists in no configured region");
        for region in self.regions_to_use(aws, key, home)? {
            self.check_region(&key.reference, &region)?;
            self.check_allowed(aws, &region)?;
            let (arn, client) = (aws.arn(&region), self.clients.client(&region).await);
            let ask = client.describe_key().key_id(&arn);
            let credentials = self.clients.credentials().await;
            let action = Action { name: "DescribeKey", region: &region };
            match self.in_time(&arn, Box::pin(credentials.send(action, &arn, "kms:DescribeKey", || ask.clone().send()))).await {
                Ok(answer) => return answer.key_metadata.ok_or_else(|| unusable_answer(&arn)),
                Err(error @ WrapperError::Unavailable { .. }) => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }
}
