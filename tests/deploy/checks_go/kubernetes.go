package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/validation/field"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	"k8s.io/kubernetes/pkg/api/pod"
	"k8s.io/kubernetes/pkg/apis/apps"
	_ "k8s.io/kubernetes/pkg/apis/apps/install"
	appsvalidation "k8s.io/kubernetes/pkg/apis/apps/validation"
	"k8s.io/kubernetes/pkg/apis/batch"
	_ "k8s.io/kubernetes/pkg/apis/batch/install"
	batchvalidation "k8s.io/kubernetes/pkg/apis/batch/validation"
	"k8s.io/kubernetes/pkg/apis/core"
	_ "k8s.io/kubernetes/pkg/apis/core/install"
	corev1conversion "k8s.io/kubernetes/pkg/apis/core/v1"
	corevalidation "k8s.io/kubernetes/pkg/apis/core/validation"
	"k8s.io/kubernetes/pkg/apis/networking"
	_ "k8s.io/kubernetes/pkg/apis/networking/install"
	networkingvalidation "k8s.io/kubernetes/pkg/apis/networking/validation"
	"k8s.io/kubernetes/pkg/apis/policy"
	_ "k8s.io/kubernetes/pkg/apis/policy/install"
	policyvalidation "k8s.io/kubernetes/pkg/apis/policy/validation"
	podsecurityapi "k8s.io/pod-security-admission/api"
	podsecurity "k8s.io/pod-security-admission/policy"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

var templatePath = field.NewPath("spec", "template")

// checkKustomization checks the objects that a folder with a kustomization.yaml stands for.
func checkKustomization(folder string) (report, error) {
	objects, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), folder)
	if err != nil {
		return report{Faults: []string{err.Error()}}, nil
	}
	text, err := objects.AsYaml()
	if err != nil {
		return report{}, err
	}
	return checkObjects(bytes.NewReader(text))
}

// checkObjects checks each document as the API server does when it is created, and finds them as they were written.
func checkObjects(documents io.Reader) (report, error) {
	scheme := legacyscheme.Scheme
	if err := monitoring.AddToScheme(scheme); err != nil {
		return report{}, err
	}
	decoder := serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer()
	reader := utilyaml.NewYAMLReader(bufio.NewReader(documents))
	answer := report{Faults: []string{}}
	found := []any{}
	for {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			answer.Found = found
			return answer, nil
		}
		if err != nil {
			return report{}, err
		}
		var written map[string]any
		if err := yaml.Unmarshal(document, &written); err != nil {
			return report{}, err
		}
		if written == nil {
			continue
		}
		found = append(found, written)
		object, kind, err := decoder.Decode(document, nil, nil)
		if err != nil {
			answer.Faults = append(answer.Faults, fmt.Sprintf("%v: %v", written["kind"], err))
			continue
		}
		faults, err := faultsOf(scheme, object)
		if err != nil {
			return report{}, err
		}
		for _, fault := range faults {
			answer.Faults = append(answer.Faults, kind.Kind+": "+fault)
		}
	}
}

// faultsOf finds what the API server refuses, what it warns of, and what the restricted pod security standard forbids.
func faultsOf(scheme *runtime.Scheme, object runtime.Object) ([]string, error) {
	if _, isOperators := object.(*monitoring.ServiceMonitor); isOperators {
		return nil, nil
	}
	if _, isOperators := object.(*monitoring.PrometheusRule); isOperators {
		return nil, nil
	}
	scheme.Default(object)
	internal, err := scheme.UnsafeConvertToVersion(object, runtime.InternalGroupVersioner)
	if err != nil {
		return nil, err
	}
	switch each := internal.(type) {
	case *apps.Deployment:
		options := pod.GetValidationOptionsFromPodTemplate(&each.Spec.Template, nil)
		return templateFaults(&each.Spec.Template, appsvalidation.ValidateDeployment(each, options))
	case *apps.StatefulSet:
		options := pod.GetValidationOptionsFromPodTemplate(&each.Spec.Template, nil)
		return templateFaults(&each.Spec.Template, appsvalidation.ValidateStatefulSet(each, options))
	case *batch.CronJob:
		template := &each.Spec.JobTemplate.Spec.Template
		options := pod.GetValidationOptionsFromPodTemplate(template, nil)
		return templateFaults(template, batchvalidation.ValidateCronJobCreate(each, options))
	case *core.Service:
		each.Spec.ClusterIPs = []string{each.Spec.ClusterIP} // as the server fills it in
		return texts(corevalidation.ValidateServiceCreate(each)), nil
	case *core.ConfigMap:
		return texts(corevalidation.ValidateConfigMap(each)), nil
	case *core.Namespace:
		return texts(corevalidation.ValidateNamespace(each)), nil
	case *networking.NetworkPolicy:
		return texts(networkingvalidation.ValidateNetworkPolicy(each, networkingvalidation.NetworkPolicyValidationOptions{})), nil
	case *policy.PodDisruptionBudget:
		return texts(policyvalidation.ValidatePodDisruptionBudget(each, policyvalidation.PodDisruptionBudgetValidationOptions{})), nil
	}
	return []string{"nobody has said here how it is validated"}, nil
}

func templateFaults(template *core.PodTemplateSpec, refused field.ErrorList) ([]string, error) {
	faults := texts(refused)
	faults = append(faults, pod.GetWarningsForPodTemplate(context.Background(), templatePath, template, nil)...)
	var external corev1.PodTemplateSpec
	if err := corev1conversion.Convert_core_PodTemplateSpec_To_v1_PodTemplateSpec(template, &external, nil); err != nil {
		return nil, err
	}
	evaluator, err := podsecurity.NewEvaluator(podsecurity.DefaultChecks(), nil)
	if err != nil {
		return nil, err
	}
	restricted := podsecurityapi.LevelVersion{Level: podsecurityapi.LevelRestricted, Version: podsecurityapi.LatestVersion()}
	metadata := metav1.ObjectMeta{Labels: template.Labels, Annotations: template.Annotations}
	for _, result := range evaluator.EvaluatePod(restricted, &metadata, &external.Spec) {
		if !result.Allowed {
			faults = append(faults, fmt.Sprintf("%s: %s", result.ForbiddenReason, result.ForbiddenDetail))
		}
	}
	return faults, nil
}

func texts(refused field.ErrorList) []string {
	found := make([]string, 0, len(refused))
	for _, each := range refused {
		found = append(found, each.Error())
	}
	return found
}
